"""A table of numbers by UUID in C memory, for many looks at once: one look finds what there is.

Who finds its place taken goes to the next; at least half of the places are free. For one thread.
"""

from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

cdef enum:
    ID_SIZE = 16
    FEWEST_PLACES = 1024

cdef struct Place:
    uint64_t id[2]
    int32_t number      # 0: nobody

cdef struct IdTable:
    Place* places
    size_t mask
    size_t count


cdef inline int open_id_table(IdTable* table, size_t places) noexcept nogil:
    """Make an empty table of so many places, a power of two. Returns -1 if memory is out."""
    table.count = 0
    table.mask = places - 1
    table.places = <Place*>calloc(places, sizeof(Place))
    return -1 if table.places == NULL else 0


cdef inline void close_id_table(IdTable* table) noexcept nogil:
    """Give the memory back."""
    free(table.places)
    table.places = NULL


cdef inline Place* place_of_id(const IdTable* table, const uint64_t* wanted) noexcept nogil:
    """Return the place of an id, or the free one where it belongs."""
    cdef uint64_t sum = (wanted[0] ^ wanted[1]) * <uint64_t>0x9E3779B97F4A7C15
    cdef size_t at = <size_t>(sum >> 32) & table.mask
    cdef Place* place = &table.places[at]
    while place.number and (place.id[0] != wanted[0] or place.id[1] != wanted[1]):
        at = (at + 1) & table.mask
        place = &table.places[at]
    return place


cdef inline int32_t number_of(const IdTable* table, const uint8_t* agent_id) noexcept nogil:
    """Return the number of the id in these 16 bytes; 0 if it has none."""
    cdef uint64_t wanted[2]
    memcpy(wanted, agent_id, ID_SIZE)
    return place_of_id(table, wanted).number


cdef inline int grow_id_table(IdTable* table) noexcept nogil:
    cdef IdTable grown
    cdef size_t at
    if open_id_table(&grown, (table.mask + 1) * 2) < 0:
        return -1
    for at in range(table.mask + 1):
        if table.places[at].number:
            place_of_id(&grown, table.places[at].id)[0] = table.places[at]
    grown.count = table.count
    free(table.places)
    table[0] = grown
    return 0


cdef inline int set_number(IdTable* table, const uint8_t* agent_id, int32_t number) noexcept nogil:
    """Give an id a number other than 0. Returns -1, and all is as it was, if memory is out."""
    cdef Place new
    cdef Place* place
    if table.count * 2 > table.mask and grow_id_table(table) < 0:
        return -1
    memcpy(new.id, agent_id, ID_SIZE)
    new.number = number
    place = place_of_id(table, new.id)
    table.count += place.number == 0
    place[0] = new
    return 0


cdef inline void drop_number(IdTable* table, const uint8_t* agent_id) noexcept nogil:
    """Let an id have no number; it may have none already."""
    cdef Place moved
    cdef Place* place
    cdef size_t at
    memcpy(moved.id, agent_id, ID_SIZE)
    place = place_of_id(table, moved.id)
    if place.number == 0:
        return
    place.number = 0
    table.count -= 1
    # Whoever had to go on because of it, and would now be missed, comes back.
    at = <size_t>(place - table.places)
    while True:
        at = (at + 1) & table.mask
        place = &table.places[at]
        if place.number == 0:
            return
        moved = place[0]
        place.number = 0
        place_of_id(table, moved.id)[0] = moved
