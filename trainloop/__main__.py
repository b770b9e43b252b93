"""`python -m trainloop` is the console command `trainloop`."""

from trainloop.cli.main import main

if __name__ == "__main__":
    main()
