"""What is stored, by hash: CIDs, dag-pb, UnixFS, CARs and the block store."""

from lichen.content.blocks import (
    BLOCK_BYTES_MAX,
    Blocks,
    CheckedBlocks,
    MissingBlockError,
    check_block,
    need_block,
)
from lichen.content.car import CarReader, Readable, export_car, write_car
from lichen.content.cid import CBOR, CID, DAG_CBOR, DAG_JSON, DAG_PB, JSON, LIBP2P_KEY, RAW
from lichen.content.dag import links_of
from lichen.content.dag_pb import Link
from lichen.content.disk import DiskFullError, StoreBusyError
from lichen.content.flat import FlatFile
from lichen.content.importer import check_name, import_bytes, import_directory, import_symlink
from lichen.content.ingest import SMALL_FILE_BYTES_MAX, Ingest
from lichen.content.ipld import PartOfBlockError
from lichen.content.profile import PROFILES, V0_2015, V1_2025, Profile, profile_named
from lichen.content.reader import (
    DirectoryEntry,
    Entry,
    follow,
    list_directory,
    lookup,
    read_file,
    resolve,
    stat,
)
from lichen.content.store import BlockStore
from lichen.content.tree import Added
from lichen.content.unixfs import Kind, Mtime
from lichen.content.walk import walk

__all__ = [
    "BLOCK_BYTES_MAX",
    "CBOR",
    "CID",
    "DAG_CBOR",
    "DAG_JSON",
    "DAG_PB",
    "JSON",
    "LIBP2P_KEY",
    "PROFILES",
    "RAW",
    "SMALL_FILE_BYTES_MAX",
    "V0_2015",
    "V1_2025",
    "Added",
    "BlockStore",
    "Blocks",
    "CarReader",
    "CheckedBlocks",
    "DirectoryEntry",
    "DiskFullError",
    "Entry",
    "FlatFile",
    "Ingest",
    "Kind",
    "Link",
    "MissingBlockError",
    "Mtime",
    "PartOfBlockError",
    "Profile",
    "Readable",
    "StoreBusyError",
    "check_block",
    "check_name",
    "export_car",
    "follow",
    "import_bytes",
    "import_directory",
    "import_symlink",
    "links_of",
    "list_directory",
    "lookup",
    "need_block",
    "profile_named",
    "read_file",
    "resolve",
    "stat",
    "walk",
    "write_car",
]
