// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// @title Signatures of secp256k1 keys, as Lichen writes them
/// @notice 65 bytes: r, s, recovery id (0 or 1, not 27 or 28). s lies in the lower half of the
/// order, so that there is one signature and not two for what was signed.
library LichenSignature {
    uint256 private constant S_MAX =
        0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    /// @notice Returns who signed `digest`, or the zero address when the signature is none.
    /// @dev Compare with an address that is not zero.
    function recover(bytes32 digest, bytes calldata signature) internal pure returns (address) {
        if (signature.length != 65) return address(0);
        uint8 id = uint8(signature[64]);
        bytes32 s = bytes32(signature[32:64]);
        if (id > 1 || uint256(s) > S_MAX) return address(0);
        return ecrecover(digest, 27 + id, bytes32(signature[:32]), s);
    }

    /// @notice Tells whether `signer`, not the zero address, signed `digest`.
    function holds(bytes32 digest, bytes calldata signature, address signer)
        internal
        pure
        returns (bool)
    {
        return signer != address(0) && recover(digest, signature) == signer;
    }
}
