from lichen.journal import Writer


class Stream:
    """A text stream whose disk fills up."""

    def __init__(self) -> None:
        self.full = False
        self.text = ""

    def write(self, text: str) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.text += text

    def flush(self) -> None:
        pass


def test_a_line_that_cannot_be_written_is_counted_and_said_later() -> None:
    stream = Stream()
    writer = Writer(stream)  # type: ignore[arg-type]
    writer.info("one")
    stream.full = True
    writer.info("two")
    writer.error("three")
    stream.full = False
    writer.info("four")
    assert stream.text == "one\n(2 lines could not be written)\nfour\n"
