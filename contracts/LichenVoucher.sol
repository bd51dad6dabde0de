// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

import {LichenSignature} from "./LichenSignature.sol";

/// @title Vouchers of payment channels
/// @notice A voucher says that `cumulative` of a channel's deposit, counted from its opening, is the
/// payee's: the highest one counts. It is EIP-712 typed data, `Voucher(bytes32 channel,uint128
/// cumulative)` in the domain `EIP712Domain(string name,string version,bytes32 salt)` =
/// ("Lichen", "1", network id): bound to a network, but to no chain and no contract.
/// @dev The same as `lichen.ledger.voucher`. A contract that pays by vouchers keeps what it has
/// paid per channel and pays the difference.
library LichenVoucher {
    bytes32 private constant DOMAIN_TYPE =
        keccak256("EIP712Domain(string name,string version,bytes32 salt)");
    bytes32 private constant VOUCHER_TYPE =
        keccak256("Voucher(bytes32 channel,uint128 cumulative)");
    bytes32 private constant NAME = keccak256("Lichen");
    bytes32 private constant VERSION = keccak256("1");

    /// @notice Returns the EIP-712 domain separator of a network.
    function domainSeparator(bytes32 network) internal pure returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_TYPE, NAME, VERSION, network));
    }

    /// @notice Returns what the channel's signer signs. `cumulative` is in 10^-18 FLK.
    function digest(bytes32 network, bytes32 channel, uint128 cumulative)
        internal
        pure
        returns (bytes32)
    {
        bytes32 structHash = keccak256(abi.encode(VOUCHER_TYPE, channel, cumulative));
        return keccak256(abi.encodePacked(hex"1901", domainSeparator(network), structHash));
    }

    /// @notice Tells whether `signer` promised `cumulative` in all.
    function holds(
        bytes32 network,
        bytes32 channel,
        uint128 cumulative,
        bytes calldata signature,
        address signer
    ) internal pure returns (bool) {
        return LichenSignature.holds(digest(network, channel, cumulative), signature, signer);
    }
}
