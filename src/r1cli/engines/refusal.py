"""A server that will not answer a request, whoever asks again: what nobody but a user can mend, and what tells of the request itself."""

from r1cli.errors import Exit, R1Error


class Refusal(Exception):
    """A server will not answer this request, whoever asks again: its status, and what it said."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status = status


def refusal(url: str, status: int, told: str) -> Exception:
    """What to raise: an `R1Error` for what every request would meet with, else a `Refusal`."""
    if status in (401, 403):
        return R1Error(
            f"{url} refuses the key: {status} {told}",
            hint="export the key and name its variable: --api-key-env NAME",
            code=Exit.ENVIRONMENT,
        )
    if status == 404:
        return R1Error(
            f"{url} does not know what was asked for: {told or 'not found'}",
            hint="--model as the server names it, --url up to the part before /chat/completions",
            code=Exit.USAGE,
        )
    return Refusal(status, told)
