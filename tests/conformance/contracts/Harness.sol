// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

import {LichenCbor} from "./LichenCbor.sol";
import {LichenProof} from "./LichenProof.sol";
import {LichenReceipt} from "./LichenReceipt.sol";
import {LichenRecord} from "./LichenRecord.sol";
import {LichenVoucher} from "./LichenVoucher.sol";

/// @title The libraries, where tests can call them
contract Harness {
    function includes(bytes32 root, bytes calldata key, bytes calldata value, bytes32[] calldata siblings)
        external
        view
        returns (bool)
    {
        return LichenProof.includes(root, key, value, siblings);
    }

    function withGas(uint256 allowance, bytes calldata data)
        external
        view
        returns (bool answered, bytes memory answer)
    {
        return address(this).staticcall{gas: allowance}(data);
    }

    function includesGas(bytes32 root, bytes calldata key, bytes calldata value, bytes32[] calldata siblings)
        external
        view
        returns (uint256)
    {
        uint256 before = gasleft();
        bool holds = LichenProof.includes(root, key, value, siblings);
        uint256 used = before - gasleft();
        require(holds);
        return used;
    }

    function voucherGas(
        bytes32 network,
        bytes32 channel,
        uint128 cumulative,
        bytes calldata signature,
        address signer
    ) external view returns (uint256) {
        uint256 before = gasleft();
        bool holds = LichenVoucher.holds(network, channel, cumulative, signature, signer);
        uint256 used = before - gasleft();
        require(holds);
        return used;
    }

    function inBatchGas(bytes32 root, bytes calldata body, LichenReceipt.Path calldata path)
        external
        view
        returns (uint256)
    {
        uint256 before = gasleft();
        bool holds = LichenReceipt.inBatch(root, body, path);
        uint256 used = before - gasleft();
        require(holds);
        return used;
    }

    function excludes(bytes32 root, bytes calldata key, bytes32[] calldata siblings, bytes calldata other)
        external
        view
        returns (bool)
    {
        return LichenProof.excludes(root, key, siblings, other);
    }

    function voucherDigest(bytes32 network, bytes32 channel, uint128 cumulative)
        external
        pure
        returns (bytes32)
    {
        return LichenVoucher.digest(network, channel, cumulative);
    }

    function voucherHolds(
        bytes32 network,
        bytes32 channel,
        uint128 cumulative,
        bytes calldata signature,
        address signer
    ) external pure returns (bool) {
        return LichenVoucher.holds(network, channel, cumulative, signature, signer);
    }

    function inBatch(bytes32 root, bytes calldata body, LichenReceipt.Path calldata path)
        external
        view
        returns (bool)
    {
        return LichenReceipt.inBatch(root, body, path);
    }

    function settled(
        bytes32 receiptsRoot,
        bytes32 batchRoot,
        LichenReceipt.Path calldata batchPath,
        bytes calldata body,
        LichenReceipt.Path calldata path
    ) external view returns (bool) {
        return LichenReceipt.settled(receiptsRoot, batchRoot, batchPath, body, path);
    }

    function readAccount(bytes calldata value) external pure returns (uint64 nonce, uint128 balance) {
        return LichenRecord.readAccount(value);
    }

    function readEpoch(bytes calldata value) external pure returns (LichenRecord.Epoch memory) {
        return LichenRecord.readEpoch(value);
    }

    function keys(address one, address two, string calldata app, uint32 number, uint64 epoch, bytes32 channel)
        external
        pure
        returns (bytes[7] memory)
    {
        return [
            LichenRecord.accountKey(one),
            LichenRecord.nodeKey(one),
            LichenRecord.appKey(app),
            LichenRecord.releaseKey(app, number),
            LichenRecord.grantKey(one, app, two),
            LichenRecord.channelKey(channel),
            LichenRecord.epochKey(one, epoch, number)
        ];
    }
}
