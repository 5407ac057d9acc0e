"""Octets on the wire: below 0x80 as they are, the others behind 0xCC; eight at a time.

Text is runs of either kind, and to ask of each byte which one it is costs more than to move it.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .wire cimport Cursor, left_in

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define descartes_fast_trailing_zeros(word) ((uint32_t)__builtin_ctzll(word))
    #else
    static uint32_t descartes_fast_trailing_zeros(uint64_t word) {
        uint32_t count = 0;
        for (; !(word & 1); word >>= 1)
            count++;
        return count;
    }
    #endif
    """
    uint32_t trailing_zeros "descartes_fast_trailing_zeros"(uint64_t word) noexcept nogil

cdef enum:
    MARK = 0xCC


cdef inline size_t count_high(const uint8_t* data, size_t size) noexcept nogil:
    """Return how many bytes are not below 0x80."""
    cdef size_t high = 0
    cdef size_t at = 0
    cdef uint64_t word
    while size - at >= 8:
        memcpy(&word, data + at, 8)
        word = (word >> 7) & <uint64_t>0x0101010101010101
        high += (word * <uint64_t>0x0101010101010101) >> 56
        at += 8
    while at < size:
        high += data[at] >> 7
        at += 1
    return high


cdef inline uint8_t* put_octets(uint8_t* out, const uint8_t* data, size_t size) noexcept nogil:
    """Write octets where there is room for them; return where they end."""
    cdef uint64_t word, high
    cdef size_t at = 0
    cdef size_t i
    while size - at >= 8:
        memcpy(&word, data + at, 8)
        high = word & <uint64_t>0x8080808080808080
        if high == 0:
            memcpy(out, &word, 8)
            out += 8
        elif high == <uint64_t>0x8080808080808080:
            for i in range(8):
                out[2 * i] = MARK
                out[2 * i + 1] = data[at + i]
            out += 16
        else:
            for i in range(8):
                out = put_octet(out, data[at + i])
        at += 8
    while at < size:
        out = put_octet(out, data[at])
        at += 1
    return out


cdef inline uint8_t* put_octet(uint8_t* out, uint8_t octet) noexcept nogil:
    """Write one octet, without a branch: the mark stays only before a high one."""
    out[0] = MARK
    out += octet >> 7
    out[0] = octet
    return out + 1


cdef inline uint32_t take_octets(Cursor* cur, uint8_t* out, uint32_t count) noexcept nogil:
    """Take octets as long as there are words of them; return how many, at most ``count``.

    What follows the last may be anything: an octet near the end, a longer form, or broken.
    """
    cdef uint64_t word, high, marks
    cdef uint32_t filled = 0
    cdef uint32_t run
    while count - filled >= 8 and left_in(cur) >= 8:
        word = load_le64(cur.pos)
        high = word & <uint64_t>0x8080808080808080
        if high == 0:
            memcpy(out + filled, cur.pos, 8)
            cur.pos += 8
            filled += 8
            continue
        if left_in(cur) < 16:
            break
        if word & <uint64_t>0x00FF00FF00FF00FF == <uint64_t>0x00CC00CC00CC00CC:
            put_le32(out + filled, seconds_of(word))
            cur.pos += 8
            filled += 4
            continue
        # Those below 0x80 in front, then those behind marks; what is written too much is
        # written again.
        run = trailing_zeros(high) >> 3
        memcpy(out + filled, cur.pos, 8)
        cur.pos += run
        filled += run
        if count - filled < 4:
            break
        word = load_le64(cur.pos)
        marks = (word ^ <uint64_t>0x00CC00CC00CC00CC) & <uint64_t>0x00FF00FF00FF00FF
        run = trailing_zeros(marks) >> 4 if marks else 4
        if run == 0:
            break
        put_le32(out + filled, seconds_of(word))
        cur.pos += 2 * run
        filled += run
    return filled


cdef inline uint64_t load_le64(const uint8_t* data) noexcept nogil:
    """Return eight bytes, the first of them lowest: one instruction where that is the order."""
    return (
        <uint64_t>data[0] | <uint64_t>data[1] << 8 | <uint64_t>data[2] << 16
        | <uint64_t>data[3] << 24 | <uint64_t>data[4] << 32 | <uint64_t>data[5] << 40
        | <uint64_t>data[6] << 48 | <uint64_t>data[7] << 56
    )


cdef inline uint32_t seconds_of(uint64_t word) noexcept nogil:
    """Return the second, fourth, sixth and eighth byte."""
    word = (word >> 8) & <uint64_t>0x00FF00FF00FF00FF
    word = (word | word >> 8) & <uint64_t>0x0000FFFF0000FFFF
    return <uint32_t>(word | word >> 16)


cdef inline void put_le32(uint8_t* out, uint32_t value) noexcept nogil:
    out[0] = <uint8_t>value
    out[1] = <uint8_t>(value >> 8)
    out[2] = <uint8_t>(value >> 16)
    out[3] = <uint8_t>(value >> 24)
