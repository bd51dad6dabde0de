// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

import {LichenCbor} from "./LichenCbor.sol";

/// @title Keys and records of a Lichen network's state
/// @notice Which key an entry stands under, and how to read the entries that contracts need most.
/// @dev The same as `lichen.ledger.tables` and `lichen.ledger.types`. Read only values whose
/// inclusion was proved.
library LichenRecord {
    /// @notice A settled batch of a node's receipts: `receipts` of them from its `first` on.
    struct Epoch {
        uint64 epoch;
        uint64 first;
        uint64 receipts;
        uint64 sequence;
        bytes32 receiptsRoot;
    }

    function accountKey(address account) internal pure returns (bytes memory) {
        return abi.encodePacked("account/", account);
    }

    function nodeKey(address node) internal pure returns (bytes memory) {
        return abi.encodePacked("node/", node);
    }

    function appKey(string memory name) internal pure returns (bytes memory) {
        return abi.encodePacked("app/", name);
    }

    function releaseKey(string memory app, uint32 number) internal pure returns (bytes memory) {
        return abi.encodePacked("release/", app, "/", number);
    }

    function grantKey(address owner, string memory app, address delegate)
        internal
        pure
        returns (bytes memory)
    {
        return abi.encodePacked("grant/", owner, delegate, app);
    }

    function channelKey(bytes32 channel) internal pure returns (bytes memory) {
        return abi.encodePacked("channel/", channel);
    }

    /// @param sequence The batches of one epoch are numbered from 0.
    function epochKey(address node, uint64 epoch, uint32 sequence)
        internal
        pure
        returns (bytes memory)
    {
        return abi.encodePacked("epoch/", node, epoch, sequence);
    }

    /// @notice Reads an account: its next transaction's nonce, and its balance in 10^-18 FLK.
    function readAccount(bytes calldata value) internal pure returns (uint64 nonce, uint128 balance) {
        uint256 offset = LichenCbor.expect(value, 0, "\xa2\x65nonce");
        (nonce, offset) = LichenCbor.readUint(value, offset);
        offset = LichenCbor.expect(value, offset, "\x67balance");
        (balance, offset) = LichenCbor.readAmount(value, offset);
        LichenCbor.expectEnd(value, offset);
    }

    /// @notice Reads an epoch record. Its node is the key's; the text of it is passed over.
    function readEpoch(bytes calldata value) internal pure returns (Epoch memory record) {
        uint256 offset = LichenCbor.expect(value, 0, "\xa6\x64node\x78\x2a") + 42;
        offset = LichenCbor.expect(value, offset, "\x65epoch");
        (record.epoch, offset) = LichenCbor.readUint(value, offset);
        offset = LichenCbor.expect(value, offset, "\x65first");
        (record.first, offset) = LichenCbor.readUint(value, offset);
        offset = LichenCbor.expect(value, offset, "\x68receipts");
        (record.receipts, offset) = LichenCbor.readUint(value, offset);
        offset = LichenCbor.expect(value, offset, "\x68sequence");
        (record.sequence, offset) = LichenCbor.readUint(value, offset);
        offset = LichenCbor.expect(value, offset, "\x6dreceipts_root");
        (record.receiptsRoot, offset) = LichenCbor.readBytes32(value, offset);
        LichenCbor.expectEnd(value, offset);
    }
}
