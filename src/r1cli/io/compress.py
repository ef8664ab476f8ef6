"""Byte streams behind `.gz` and `.zst`, for reading and writing, and the kinds of row file r1 knows.

Compressed output is deterministic: the same rows give the same bytes, whatever the time and the file's name.
"""

import gzip
import io
from typing import IO, Any

JSONL, PARQUET = "jsonl", "parquet"
GZIP_MAGIC, ZSTD_MAGIC, PARQUET_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
SUFFIXES = ".jsonl, .jsonl.gz, .jsonl.zst, .parquet"
_PLAIN = (".jsonl", ".ndjson", ".json")


def kind_of(name: str) -> tuple[str, str] | None:
    """`(format, compression)` by a file's suffix: ("jsonl", "" | "gz" | "zst") or ("parquet", ""); None for any other name."""
    lower = name.lower()
    if lower.endswith(".parquet"):
        return PARQUET, ""
    for compression in ("gz", "zst"):
        if lower.endswith("." + compression):
            return (JSONL, compression) if lower[: -len(compression) - 1].endswith(_PLAIN) else None
    return (JSONL, "") if lower.endswith(_PLAIN) else None


def compression_of(magic: bytes) -> str:
    """The compression that a stream's first bytes announce: "gz", "zst" or ""."""
    if magic.startswith(GZIP_MAGIC):
        return "gz"
    return "zst" if magic.startswith(ZSTD_MAGIC) else ""


def reader(raw: IO[bytes], compression: str) -> IO[bytes]:
    """`raw` decompressed; a stream that ends in the middle of a frame raises `EOFError`, broken data `OSError` or `zlib.error`."""
    if compression == "gz":
        return gzip.GzipFile(fileobj=raw, mode="rb")  # type: ignore[return-value]
    return io.BufferedReader(_ZstdReader(raw), 1 << 17) if compression == "zst" else raw


def writer(raw: IO[bytes], compression: str) -> IO[bytes]:
    """A stream that compresses into `raw`; closing it ends the frame and leaves `raw` open."""
    if compression == "gz":
        return gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0)  # type: ignore[return-value]
    if compression == "zst":
        import zstandard

        return zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(raw, closefd=False)
    raise ValueError(f"no compression {compression!r}")


class _ZstdReader(io.RawIOBase):
    """Zstandard frames as a raw stream. Unlike zstandard's own reader it refuses a file that is cut off, instead of ending early."""

    def __init__(self, raw: IO[bytes]) -> None:
        import zstandard

        self._raw = raw
        self._read: Any = getattr(raw, "read1", raw.read)
        self._error = zstandard.ZstdError
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._frame = self._new_frame()
        self._inside = False  # between the first byte of a frame and its end
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            chunk = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._inside = self._new_frame(), False
            chunk = chunk or self._read(1 << 16)
            if not chunk:
                if self._inside:
                    raise EOFError("compressed data ends in the middle of a frame")
                return 0
            self._inside = True
            try:
                self._ready = self._frame.decompress(chunk)
            except self._error as error:
                raise OSError(f"not Zstandard data ({error})") from None
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
