"""How tests run the command line in their own process."""

from typer.testing import CliRunner, Result

from wbc_batch.cli import app


def invoke(*arguments: object) -> Result:
    """Run the command; what it does not catch is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result
