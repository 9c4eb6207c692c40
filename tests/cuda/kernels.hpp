// What a kernel is made of: the arguments that it is launched with, types by their names, and where elements are.
// ONNX Runtime 1.31 launches them by these names and with these arguments; each group below says in which of its files.

#pragma once

#include "device.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

// What a launch gives: pointers to the arguments, of which each kernel knows the types.
struct Arguments {
    void **list;
    dim3 grid, block;
    template <class T> T at(int k) const { return *static_cast<T *>(list[k]); }
    // The divisor of a DivMod, its first field.
    int64_t divisor(int k) const { return at<uint32_t>(k); }
    // A TArray: its size, and its elements behind it, where their type may be.
    template <class T> std::vector<T> array(int k) const {
        auto begin = static_cast<char *>(list[k]);
        auto first = reinterpret_cast<T *>(begin + std::max(sizeof(int32_t), alignof(T)));
        return std::vector<T>(first, first + *reinterpret_cast<int32_t *>(begin));
    }
};

// A kernel's template arguments and name.
struct Kernel {
    std::string name;
    std::vector<std::string> given;
};

// A kernel is made into work: what it does later, with the arguments as they are now.
using Maker = Work(const Kernel &, const Arguments &);

// core/providers/cuda/cu_inc/{binary,unary}_elementwise_impl.cuh, math/clip_impl.cu, tensor/where_impl.cu
Maker simple, per_channel, broadcast, unary, clip, choose, choose_simple;
// tensor/{gather,scatter_nd}_impl.cu
Maker gather, scatter;
// tensor/{concat,split}_impl.cu
Maker concat, concat_any, split, split_any, split_by_table;
// tensor/{transpose,expand,slice,reverse_sequence}_impl.cu
Maker transpose, transpose_rows, expand, expand_matrix, slice, reverse;
// rnn/rnn_impl.cu
Maker reverse_inputs;
// cuda_utils.cu, generator/range_impl.cu
Maker bias, range;
// reduction/reduction_functions.cu
Maker sum_of_rows, sum_of_columns;

using Half = _Float16;

template <class F> Work with_number(const std::string &type, F f) {
    if (type == "float") return f(float());
    if (type == "double") return f(double());
    if (type == "__half") return f(Half());
    if (type == "int") return f(int32_t());
    if (type == "long") return f(int64_t());
    stop("no arithmetic for %s", type.c_str());
}

template <class F> Work with_answer(const std::string &type, F f) { return type == "bool" ? f(bool()) : with_number(type, f); }

// What is only moved, by its width: 16 bytes is the most that one thread moves.
template <class F> auto with_bytes(const std::string &type, F f) {
    if (type == "int4") return f(__int128());
    if (type == "long" || type == "double") return f(int64_t());
    if (type == "int" || type == "unsigned int" || type == "float") return f(int32_t());
    if (type == "short" || type == "__half") return f(int16_t());
    if (type == "signed char" || type == "char" || type == "bool") return f(int8_t());
    stop("no moving of %s", type.c_str());
}

// Where an operand's element is for each of the result's.
using Place = std::function<int64_t(int64_t)>;

// By the operand's strides, and those of the result, which are the divisors of DivMods.
Place strided(std::vector<int64_t> strides, std::vector<std::array<uint32_t, 3>> of_result);
