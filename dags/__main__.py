"""`python -m dags` is the `spherecast` command."""

from dags.cli import main

if __name__ == "__main__":
    main()
