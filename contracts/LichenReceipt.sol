// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

import {LichenProof} from "./LichenProof.sol";

/// @title Run receipts under a settled root
/// @notice A node signs receipts in batches and settles batches per epoch, both by Merkle trees as in
/// RFC 6962: leaf = sha256(0x00 || data), inner = sha256(0x01 || left || right), and a node without a
/// sibling moves up unchanged. The data of a batch's leaf is a receipt's body; the data of a
/// settlement's leaf is a batch's root.
/// @dev The same as `lichen.market.merkle`. A root does not fix the number of its leaves: a path
/// shows that a receipt is under the root, not that it is the index-th.
library LichenReceipt {
    /// @notice Where a leaf stands, and the siblings from it up to the root.
    struct Path {
        uint256 index;
        uint256 count;
        bytes32[] siblings;
    }

    uint256 internal constant SIBLINGS_MAX = 32;

    /// @notice Tells whether the receipt with `body` is in the batch with this root.
    function inBatch(bytes32 batchRoot, bytes memory body, Path calldata path)
        internal
        view
        returns (bool)
    {
        return _leadsTo(batchRoot, leaf(body), path);
    }

    /// @notice Tells whether a receipt is in a batch that is under a settled root.
    /// @param receiptsRoot What the ledger's epoch record holds (see LichenRecord.readEpoch).
    /// @param batchRoot The root of the receipt's batch, which the node signed.
    function settled(
        bytes32 receiptsRoot,
        bytes32 batchRoot,
        Path calldata batchPath,
        bytes memory body,
        Path calldata path
    ) internal view returns (bool) {
        return inBatch(batchRoot, body, path)
            && _leadsTo(receiptsRoot, leaf(abi.encodePacked(batchRoot)), batchPath);
    }

    /// @notice Hashes a leaf.
    function leaf(bytes memory data) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0), data));
    }

    function _leadsTo(bytes32 root, bytes32 node, Path calldata path) private view returns (bool) {
        uint256 index = path.index;
        uint256 count = path.count;
        bytes32[] calldata siblings = path.siblings;
        uint256 used = 0;
        if (index >= count || siblings.length > SIBLINGS_MAX) return false;
        while (count > 1) {
            if (index ^ 1 < count) {
                if (used == siblings.length) return false;
                bytes32 sibling = siblings[used++];
                node = index & 1 == 1
                    ? LichenProof.inner(sibling, node)
                    : LichenProof.inner(node, sibling);
            }
            index >>= 1;
            count = count / 2 + count % 2;
        }
        return used == siblings.length && node == root;
    }
}
