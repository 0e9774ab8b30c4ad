"""``python -m dpsd`` is the command ``dpsd``."""

from dpsd.cli import main

if __name__ == "__main__":
    main()
