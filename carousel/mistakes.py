"""What a person got wrong in a document, in one line."""

from pydantic import ValidationError


def first_mistake(error: ValidationError) -> str:
    """The first thing pydantic found, as one line: where, what was expected, what came.

    A key that nobody knows comes before all others: a misspelt key is also a missing one.
    """
    mistakes = error.errors(include_url=False)
    mistake = next((one for one in mistakes if one["type"] == "extra_forbidden"), mistakes[0])
    where = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "missing":
        return f"{where}: expected a value, came none"
    if mistake["type"] == "extra_forbidden":
        return f"{where}: unknown key"
    came = repr(mistake["input"])
    message = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] == "value_error" or not where:
        return f"{where}: {message}" if where else message
    return f"{where}: {message} (came: {came if len(came) <= 60 else came[:57] + '...'})"
