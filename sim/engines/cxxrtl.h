// SPDX-License-Identifier: BSD-2-Clause
// The model that Yosys' CXXRTL makes of the component.

#include "Unit.h"

using Word = uint32_t;

struct Model {
    cxxrtl_design::p_unit unit;
    void settle() { unit.step(); }
    // What follows from the registers is settled with the next inputs.
    void tick() {
        unit.eval();
        unit.commit();
    }
};

template<std::size_t B> static void put(cxxrtl::value<B> &port, const Word *w) {
    for (std::size_t i = 0; i < port.chunks; i++) port.data[i] = w[i];
}
template<std::size_t B> static void get(const cxxrtl::value<B> &port, Word *w) {
    for (std::size_t i = 0; i < port.chunks; i++) w[i] = port.data[i];
}
template<std::size_t B> static void get(const cxxrtl::wire<B> &port, Word *w) {
    get(port.curr, w);
}
