// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// @title A strict reader of canonical DAG-CBOR
/// @notice Reads what Lichen's headers and records are made of, and reverts at any other spelling of
/// the same value, so that what is hashed or signed has one meaning.
/// @dev Every function takes where to read and returns where to go on. Reading behind the end
/// reverts: `data[offset:end]` checks its bounds.
library LichenCbor {
    /// @notice Something other than the one canonical spelling stands at this offset.
    error NotCanonical(uint256 offset);

    /// @notice Requires exactly these bytes, such as a map's head and a field's name.
    function expect(bytes calldata data, uint256 offset, bytes memory part)
        internal
        pure
        returns (uint256 next)
    {
        next = offset + part.length;
        if (keccak256(data[offset:next]) != keccak256(part)) revert NotCanonical(offset);
    }

    /// @notice Reads an unsigned integer in its shortest spelling.
    function readUint(bytes calldata data, uint256 offset)
        internal
        pure
        returns (uint64 value, uint256 next)
    {
        uint256 first = uint8(data[offset]);
        if (first < 24) return (uint64(first), offset + 1);
        if (first > 27) revert NotCanonical(offset);
        uint256 width = 1 << (first - 24);
        next = offset + 1 + width;
        value = uint64(uint256(bytes32(data[offset + 1:next])) >> (256 - 8 * width));
        uint256 least = width == 1 ? 24 : 1 << (4 * width);
        if (value < least) revert NotCanonical(offset);
    }

    /// @notice Reads a byte string of 32 bytes.
    function readBytes32(bytes calldata data, uint256 offset)
        internal
        pure
        returns (bytes32 value, uint256 next)
    {
        next = expect(data, offset, hex"5820") + 32;
        value = bytes32(data[next - 32:next]);
    }

    /// @notice Reads an amount in 10^-18 FLK: a decimal string without sign or leading zeros.
    function readAmount(bytes calldata data, uint256 offset)
        internal
        pure
        returns (uint128 amount, uint256 next)
    {
        uint256 size = uint8(data[offset]) ^ 0x60;
        uint256 start = offset + 1;
        if (size == 24) {
            size = uint8(data[start++]);
            if (size < 24) revert NotCanonical(offset);
        } else if (size > 24) {
            revert NotCanonical(offset);
        }
        if (size == 0 || size > 39) revert NotCanonical(offset);
        next = start + size;
        uint256 value = 0;
        for (uint256 i = start; i < next; ++i) {
            uint256 digit = uint256(uint8(data[i])) ^ 0x30;
            if (digit > 9 || (value == 0 && i > start)) revert NotCanonical(offset);
            value = value * 10 + digit;
        }
        if (value > type(uint128).max) revert NotCanonical(offset);
        amount = uint128(value);
    }

    /// @notice Requires the end.
    function expectEnd(bytes calldata data, uint256 offset) internal pure {
        if (offset != data.length) revert NotCanonical(offset);
    }
}
