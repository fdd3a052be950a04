"""Pictures of pools and folders by number: a few of a shard's are in memory, never all."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tastemaker.core.lazy_torch import np
from tastemaker.core.reading import read_bytes
from tastemaker.storage.parquet import whole_parquet
from tastemaker.storage.pool import Pool

ROWS_AT_ONCE = 8
"""Images that are read together: those of a prompt follow one another in a pool."""

KEPT_BYTES = 1 << 26
"""Of encoded images that a pool's reader keeps."""

OPEN_SHARDS = 8


class FolderReader:
    """Images as files.

    Args:
        folder: Their folder.
        names: Paths in it, by number.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.names = names

    def read(self, place: int) -> bytes:
        """Return the encoded bytes of an image.

        Raises:
            TastemakerError: It is gone or cannot be read.
        """
        return read_bytes(self.folder / self.names[place])


class PoolReader:
    """Images in a pool's shards, by number over all shards.

    Args:
        pool: The pool.

    Raises:
        TastemakerError: A shard is missing or torn.
    """

    def __init__(self, pool: Pool) -> None:
        import pyarrow.parquet as pq

        self._shards = pool.shards()
        rows = []
        for shard in self._shards:
            with whole_parquet(shard):
                rows.append(pq.read_metadata(shard).num_rows)
        self._starts = np.cumsum([0, *rows])
        self._open: OrderedDict[int, Any] = OrderedDict()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def read(self, place: int) -> bytes:
        """Return the encoded bytes of an image.

        Raises:
            TastemakerError: Its shard is gone or torn.
        """
        with self._lock:
            if place not in self._kept:
                self._read_around(place)
            self._kept.move_to_end(place)
            return self._kept[place]

    def _read_around(self, place: int) -> None:
        """Keep an image, and those of its batch."""
        shard = int(np.searchsorted(self._starts, place, "right")) - 1
        first, row = int(self._starts[shard]), place - int(self._starts[shard])
        with whole_parquet(self._shards[shard]):
            file = self._file(shard)
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if row < rows:
                    break
                first, row = first + rows, row - rows
            # Pages up to the row are read one after the other, not the whole column.
            batches = file.iter_batches(
                ROWS_AT_ONCE, row_groups=[group], columns=["image.bytes"], use_threads=False
            )
            for batch in batches:
                if row < batch.num_rows:
                    break
                first, row = first + batch.num_rows, row - batch.num_rows
        wanted = first + row
        images = [each["bytes"] for each in batch["image"].to_pylist()]
        for number, data in sorted(enumerate(images, first), key=lambda each: each[0] == wanted):
            if number not in self._kept:
                self._kept[number] = data
                self._bytes += len(data)
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1])

    def _file(self, shard: int) -> Any:
        import pyarrow.parquet as pq

        if shard not in self._open:
            while len(self._open) >= OPEN_SHARDS:
                self._open.popitem(last=False)[1].close()
            self._open[shard] = pq.ParquetFile(
                self._shards[shard],
                buffer_size=1 << 20,
                pre_buffer=False,
                page_checksum_verification=True,
            )
        self._open.move_to_end(shard)
        return self._open[shard]
