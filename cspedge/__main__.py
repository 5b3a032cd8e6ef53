"""`python -m cspedge`."""

from cspedge.cli.app import main

if __name__ == "__main__":
    main()
