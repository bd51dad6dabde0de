// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

import {LichenCbor} from "./LichenCbor.sol";
import {LichenProof} from "./LichenProof.sol";
import {LichenSignature} from "./LichenSignature.sol";

/// @title What a chain knows of a Lichen network: state roots that its sequencer signed
/// @notice Anybody may bring a newer block header; whoever has a proof may then ask whether an entry
/// is in the state, or is not. Nobody owns this contract and nothing in it can be changed.
/// @dev It trusts the sequencer alone: one that signs two blocks of one height can show either here.
/// Only networks with a sequencer whose key is secp256k1 can be followed.
///
///     block hash = sha256("lichen/block/1" || 0x00 || network || header)
///
/// An older root stays usable, so that nobody can void a proof by bringing a newer header just
/// before it; a caller to whom freshness matters compares `height` with `latest()`.
contract LichenHead {
    /// @notice The network's id: the SHA-256 of its canonical genesis.
    bytes32 public immutable network;
    /// @notice The address of the key that the genesis names as sequencer.
    address public immutable sequencer;

    /// @notice The state roots that were brought, by height.
    mapping(uint64 height => bytes32 stateRoot) private _roots;
    uint64 private _height;
    uint64 private _timeMs;

    event Advanced(uint64 indexed height, uint64 timeMs, bytes32 stateRoot);

    /// @notice A network has to have a sequencer.
    error NoSequencer();
    /// @notice The header is not above the latest one.
    error NotNewer(uint64 height, uint64 latest);
    /// @notice The sequencer did not sign this header for this network.
    error NotSigned();
    /// @notice No header of this height was brought.
    error UnknownHeight(uint64 height);

    constructor(bytes32 network_, address sequencer_) {
        if (sequencer_ == address(0)) revert NoSequencer();
        network = network_;
        sequencer = sequencer_;
    }

    /// @notice Brings a block header above the latest one.
    /// @param header Canonical DAG-CBOR, as `GET /v1/proofs/{key}` gives it.
    /// @param signature The sequencer's, of the block's hash.
    function advance(bytes calldata header, bytes calldata signature) external {
        (uint64 height, uint64 timeMs, bytes32 stateRoot) = _read(header);
        if (height <= _height) revert NotNewer(height, _height);
        bytes32 hash = sha256(abi.encodePacked("lichen/block/1", bytes1(0), network, header));
        if (!LichenSignature.holds(hash, signature, sequencer)) revert NotSigned();
        _height = height;
        _timeMs = timeMs;
        _roots[height] = stateRoot;
        emit Advanced(height, timeMs, stateRoot);
    }

    /// @notice Returns the latest header that was brought; height 0 before the first.
    /// @return height The block's height.
    /// @return timeMs Its time, milliseconds since 1970, by the sequencer's clock.
    /// @return stateRoot The root of the state after it.
    function latest() external view returns (uint64 height, uint64 timeMs, bytes32 stateRoot) {
        return (_height, _timeMs, _roots[_height]);
    }

    /// @notice Returns the state root of a height that was brought; reverts for any other.
    function stateRootAt(uint64 height) public view returns (bytes32) {
        if (height == 0 || height > _height || _roots[height] == 0) revert UnknownHeight(height);
        return _roots[height];
    }

    /// @notice Tells whether `key` had `value` after the block of `height`.
    function has(
        uint64 height,
        bytes calldata key,
        bytes calldata value,
        bytes32[] calldata siblings
    ) external view returns (bool) {
        return LichenProof.includes(stateRootAt(height), key, value, siblings);
    }

    /// @notice Tells whether `key` was absent after the block of `height`.
    /// @dev Not the opposite of `has`: both are false for a proof that does not hold.
    function lacks(
        uint64 height,
        bytes calldata key,
        bytes32[] calldata siblings,
        bytes calldata other
    ) external view returns (bool) {
        return LichenProof.excludes(stateRootAt(height), key, siblings, other);
    }

    function _read(bytes calldata header)
        private
        pure
        returns (uint64 height, uint64 timeMs, bytes32 stateRoot)
    {
        uint256 offset = LichenCbor.expect(header, 0, "\xa6\x66height");
        (height, offset) = LichenCbor.readUint(header, offset);
        offset = LichenCbor.expect(header, offset, "\x67time_ms");
        (timeMs, offset) = LichenCbor.readUint(header, offset);
        offset = LichenCbor.expect(header, offset, "\x68previous");
        (, offset) = LichenCbor.readBytes32(header, offset);
        offset = LichenCbor.expect(header, offset, "\x6astate_root");
        (stateRoot, offset) = LichenCbor.readBytes32(header, offset);
        offset = LichenCbor.expect(header, offset, "\x6ctransactions");
        (, offset) = LichenCbor.readUint(header, offset);
        offset = LichenCbor.expect(header, offset, "\x71transactions_hash");
        (, offset) = LichenCbor.readBytes32(header, offset);
        LichenCbor.expectEnd(header, offset);
    }
}
