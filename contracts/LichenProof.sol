// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// @title Proofs against the state tree of a Lichen network
/// @notice Accepts and refuses exactly what `lichen.ledger.tree.verify_proof` does. The tree is
/// sparse, binary and over SHA-256; an entry sits on the path of its key's hash, most significant
/// bit first, as high as it is alone:
///
///     path  = sha256(key)
///     leaf  = sha256(0x00 || path || sha256(value))
///     inner = sha256(0x01 || left || right)      an empty side is 32 zero bytes
///
/// @dev Everything is fixed in width and leaves and inner nodes are told apart by their first byte,
/// so no value can pass for a node. Functions answer false for a proof that does not hold; they
/// revert only when the SHA-256 precompile fails, which lack of gas can bring about.
library LichenProof {
    /// @notice The most siblings that a proof can have: the bits of a path.
    uint256 internal constant DEPTH_MAX = 256;

    /// @notice The chain has no SHA-256 precompile, or the call ran out of gas.
    error HashFailed();

    /// @notice Tells whether `key` has `value` under `root`.
    /// @param root A state root that the caller trusts, such as `LichenHead.stateRootAt`.
    /// @param key The entry's key, such as `account/` and 20 bytes (see LichenRecord).
    /// @param value The entry's bytes, canonical DAG-CBOR.
    /// @param siblings The siblings' hashes from the root down.
    function includes(
        bytes32 root,
        bytes memory key,
        bytes memory value,
        bytes32[] calldata siblings
    ) internal view returns (bool) {
        bytes32 path = sha256(key);
        bytes32 leaf = _leaf(path, sha256(value));
        return siblings.length <= DEPTH_MAX && _rootOf(path, leaf, siblings) == root;
    }

    /// @notice Tells whether `key` is absent under `root`.
    /// @dev The root of an empty state is zero, and under it every key is absent: do not pass a root
    /// that may never have been set.
    /// @param other The path and value hash (64 bytes) of the leaf that stands in the key's place,
    /// or nothing when the place is empty.
    function excludes(
        bytes32 root,
        bytes memory key,
        bytes32[] calldata siblings,
        bytes calldata other
    ) internal view returns (bool) {
        bytes32 path = sha256(key);
        bytes32 node; // an empty place
        if (other.length != 0) {
            if (other.length != 64) return false;
            bytes32 otherPath = bytes32(other[:32]);
            if (otherPath == path) return false;
            node = _leaf(otherPath, bytes32(other[32:]));
        }
        return siblings.length <= DEPTH_MAX && _rootOf(path, node, siblings) == root;
    }

    /// @notice Hashes an inner node of this tree and of receipts' trees: sha256(0x01, left, right).
    /// @dev By hand, because the compiler's `sha256(abi.encodePacked(...))` takes new memory at
    /// every level and twice the gas. The 65 bytes lie behind the memory in use and the digest in
    /// scratch space, so nothing of Solidity's is touched.
    function inner(bytes32 left, bytes32 right) internal view returns (bytes32 digest) {
        bool good;
        assembly ("memory-safe") {
            let at := mload(0x40)
            mstore8(at, 1)
            mstore(add(at, 1), left)
            mstore(add(at, 33), right)
            good := staticcall(gas(), 2, at, 65, 0, 32)
            good := and(good, eq(returndatasize(), 32))
            digest := mload(0)
        }
        if (!good) revert HashFailed();
    }

    function _leaf(bytes32 path, bytes32 valueHash) private pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0), path, valueHash));
    }

    /// @dev Climbs from the deepest sibling to the root; bit 255 of the path is the root's choice.
    function _rootOf(bytes32 path, bytes32 node, bytes32[] calldata siblings)
        private
        view
        returns (bytes32)
    {
        uint256 depth = siblings.length;
        while (depth != 0) {
            unchecked {
                --depth;
            }
            bytes32 sibling = siblings[depth];
            bool right = (uint256(path) >> (255 - depth)) & 1 == 1;
            node = right ? inner(sibling, node) : inner(node, sibling);
        }
        return node;
    }
}
