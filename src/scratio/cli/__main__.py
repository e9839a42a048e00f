"""``python -m scratio.cli`` does what ``scratio`` does."""

from scratio.cli import main

if __name__ == "__main__":
    main()
