"""Train a network: `trainloop train`, from a checkout."""

from trainloop.cli.common import run_main
from trainloop.cli.train import train

if __name__ == "__main__":
    run_main(train)
