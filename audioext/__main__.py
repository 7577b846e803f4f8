"""`python -m audioext` is the same as `audioext`."""

from audioext.cli import main

if __name__ == "__main__":
    main()
