"""The program that the Makefile calls."""

import sys

from standin.main import main

if __name__ == "__main__":
    main(sys.argv[1:])
