"""Compare optimizers: `trainloop compare`, from a checkout."""

from trainloop.cli.common import run_main
from trainloop.cli.compare import compare

if __name__ == "__main__":
    run_main(compare)
