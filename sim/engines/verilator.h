// SPDX-License-Identifier: BSD-2-Clause
// The model that Verilator makes of the component.

#include <cstring>

#include "Unit.h"
#include "verilated.h"

using Word = uint32_t;

struct Model {
    VerilatedContext context;
    Unit unit{&context, ""};
    void settle() { unit.eval(); }
    void tick() { unit.eval(); }
};

template<class T> static void put(T &port, const Word *w) {
    port = w[0];
    if (sizeof(T) == 8) port |= static_cast<T>(static_cast<uint64_t>(w[1]) << 32);
}
template<class T> static void get(const T &port, Word *w) {
    w[0] = static_cast<Word>(port);
    if (sizeof(T) == 8) w[1] = static_cast<Word>(static_cast<uint64_t>(port) >> 32);
}
template<std::size_t N> static void put(VlWide<N> &port, const Word *w) {
    std::memcpy(port.data(), w, 4 * N);
}
template<std::size_t N> static void get(const VlWide<N> &port, Word *w) {
    std::memcpy(w, port.data(), 4 * N);
}
