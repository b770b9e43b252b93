"""Train with several processes: `trainloop launch`, from a checkout."""

from trainloop.cli.common import run_main
from trainloop.cli.launch import launch

if __name__ == "__main__":
    run_main(launch)
