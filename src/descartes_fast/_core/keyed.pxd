"""A table of bytes by bytes in C memory, for code without the GIL. Whoever uses it has the lock.

The buckets are as many as were asked for, so a table is meant for a known number of entries.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

cdef struct Entry:
    Entry* following
    size_t key_size
    size_t value_size
    uint8_t bytes[8]    # the key and then the value: more than these

cdef struct Keyed:
    Entry** buckets
    size_t mask
    size_t count


cdef inline int open_keyed(Keyed* table, size_t buckets) noexcept nogil:
    """Make an empty table of so many buckets, a power of two. Returns -1 if memory is out."""
    table.count = 0
    table.mask = buckets - 1
    table.buckets = <Entry**>calloc(buckets, sizeof(Entry*))
    return -1 if table.buckets == NULL else 0


cdef inline void clear_keyed(Keyed* table) noexcept nogil:
    """Remove all entries."""
    cdef size_t position
    cdef Entry* entry
    cdef Entry* following
    for position in range(table.mask + 1):
        entry = table.buckets[position]
        table.buckets[position] = NULL
        while entry != NULL:
            following = entry.following
            free(entry)
            entry = following
    table.count = 0


cdef inline void close_keyed(Keyed* table) noexcept nogil:
    """Give the memory back."""
    if table.buckets != NULL:
        clear_keyed(table)
        free(table.buckets)
        table.buckets = NULL


cdef inline Entry** place_of(const Keyed* table, const uint8_t* key, size_t size) noexcept nogil:
    """Return where the entry of a key hangs, or would: FNV-1a tells the bucket."""
    cdef uint64_t sum = 0xCBF29CE484222325
    cdef size_t position
    cdef Entry** place
    for position in range(size):
        sum = (sum ^ key[position]) * <uint64_t>0x100000001B3
    place = &table.buckets[<size_t>(sum ^ (sum >> 32)) & table.mask]
    while place[0] != NULL and (
        place[0].key_size != size or memcmp(place[0].bytes, key, size) != 0
    ):
        place = &place[0].following
    return place


cdef inline const uint8_t* find_value(
    const Keyed* table, const uint8_t* key, size_t key_size, size_t* size
) noexcept nogil:
    """Return the value of a key, good until the table changes; NULL if there is none."""
    cdef Entry* entry = place_of(table, key, key_size)[0]
    if entry == NULL:
        return NULL
    size[0] = entry.value_size
    return entry.bytes + key_size


cdef inline void remove_key(Keyed* table, const uint8_t* key, size_t size) noexcept nogil:
    """Remove an entry, if there is one."""
    cdef Entry** place = place_of(table, key, size)
    cdef Entry* entry = place[0]
    if entry != NULL:
        place[0] = entry.following
        free(entry)
        table.count -= 1


cdef inline int put_value(
    Keyed* table, const uint8_t* key, size_t key_size, const uint8_t* value, size_t size
) noexcept nogil:
    """Set the value of a key. Returns -1, and the key has none, if memory is out."""
    cdef Entry* entry = <Entry*>malloc(sizeof(Entry) + key_size + size)
    cdef Entry** place
    remove_key(table, key, key_size)
    if entry == NULL:
        return -1
    place = place_of(table, key, key_size)
    entry.following = NULL
    entry.key_size = key_size
    entry.value_size = size
    memcpy(entry.bytes, key, key_size)
    memcpy(entry.bytes + key_size, value, size)
    place[0] = entry
    table.count += 1
    return 0
