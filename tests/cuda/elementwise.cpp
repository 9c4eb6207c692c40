// Kernels that give an element for each of the inputs'.

#include "kernels.hpp"

#include <cmath>
#include <regex>

namespace {

template <class T, class U> using Two = U (*)(T, T);
template <class T> using One = T (*)(T);

template <class T> Two<T, bool> comparison(const std::string &operation) {
    if (operation == "Less") return [](T a, T b) { return a < b; };
    if (operation == "Greater") return [](T a, T b) { return a > b; };
    if (operation == "LessOrEqual") return [](T a, T b) { return a <= b; };
    if (operation == "GreaterOrEqual") return [](T a, T b) { return a >= b; };
    if (operation == "Equal") return [](T a, T b) { return a == b; };
    if (operation == "Or") return [](T a, T b) { return a || b; };
    stop("no comparison OP_%s", operation.c_str());
}

template <class T> Two<T, T> arithmetic(const std::string &operation) {
    if (operation == "Add") return [](T a, T b) { return T(a + b); };
    if (operation == "Sub") return [](T a, T b) { return T(a - b); };
    if (operation == "Mul") return [](T a, T b) { return T(a * b); };
    if (operation == "Div") return [](T a, T b) { return T(a / b); };
    if (operation == "Fmod") return [](T a, T b) { return T(std::fmod(double(a), double(b))); };
    stop("no arithmetic OP_%s", operation.c_str());
}

template <class T> One<T> function(const std::string &operation) {
    if (operation == "Sigmoid") return [](T x) { return T(1 / (1 + std::exp(-double(x)))); };
    if (operation == "Tanh") return [](T x) { return T(std::tanh(double(x))); };
    if (operation == "Relu") return [](T x) { return x > T(0) ? x : T(0); };
    if (operation == "Sqrt") return [](T x) { return T(std::sqrt(double(x))); };
    if (operation == "Abs") return [](T x) { return x < T(0) ? T(-x) : x; };
    stop("no function OP_%s", operation.c_str());
}

// "Mul" of "onnxruntime::cuda::OP_Mul<float, float, float>"
std::string operation_of(const Kernel &kernel, int k) {
    std::smatch found;
    if (!std::regex_search(kernel.given[k], found, std::regex("OP_(\\w+)"))) stop("%s: no operation", kernel.name.c_str());
    return found[1];
}

Place walking(bool walks) {
    return [=](int64_t i) { return walks ? i : 0; };
}

struct Operands {
    const void *a, *b;
    void *c;
    int64_t size;
    Place left, right;
};

template <class T, class U> Work combined(const Operands &all, Two<T, U> combine) {
    return [=] {
        auto a = static_cast<const T *>(reach(all.a, "binary")), b = static_cast<const T *>(reach(all.b, "binary"));
        auto c = static_cast<U *>(reach(all.c, "binary"));
        for (int64_t i = 0; i < all.size; i++) c[i] = combine(a[all.left(i)], b[all.right(i)]);
    };
}

Work binary(const std::string &to, const std::string &type, const std::string &operation, const Operands &all) {
    return with_answer(type, [&](auto zero) {
        using T = decltype(zero);
        if (to == "bool") return combined<T, bool>(all, comparison<T>(operation));
        return combined<T, T>(all, arithmetic<T>(operation));
    });
}

template <class T, class U> Work each(const void *from, void *to, int64_t size, std::function<U(T)> function) {
    return [=] {
        auto x = static_cast<const T *>(reach(from, "unary"));
        std::transform(x, x + size, static_cast<U *>(reach(to, "unary")), function);
    };
}

Work where(const Kernel &kernel, const Arguments &args, const std::array<int, 5> &at, const std::array<Place, 3> &places) {
    auto operand = [&](int k) { return args.at<void *>(at[k]); };
    return with_bytes(kernel.given[0], [=, is = operand(0), yes = operand(1), no = operand(2), to = operand(3),
                                        size = args.at<int>(at[4])](auto zero) -> Work {
        using T = decltype(zero);
        return [=] {
            auto chosen = static_cast<const bool *>(reach(is, "where"));
            auto x = static_cast<const T *>(reach(yes, "where")), y = static_cast<const T *>(reach(no, "where"));
            auto z = static_cast<T *>(reach(to, "where"));
            for (int64_t i = 0; i < size; i++) z[i] = chosen[places[0](i)] ? x[places[1](i)] : y[places[2](i)];
        };
    });
}

// 0: it walks along, 1: it stays, 2: it goes by its strides.
char how(const Kernel &kernel, int k) { return kernel.given[1 + k].back(); }

} // namespace

Place strided(std::vector<int64_t> strides, std::vector<std::array<uint32_t, 3>> of_result) {
    return [=](int64_t i) {
        int64_t at = 0;
        for (size_t k = 0; k < strides.size(); k++) at += strides[k] * (i / of_result[k][0]), i %= of_result[k][0];
        return at;
    };
}

Work simple(const Kernel &kernel, const Arguments &args) {
    return binary(kernel.given[2], kernel.given[3], operation_of(kernel, 5),
                  {args.at<void *>(0), args.at<void *>(1), args.at<void *>(2), args.at<int>(4),
                   walking(kernel.given[0] == "true"), walking(kernel.given[1] == "true")});
}

Work per_channel(const Kernel &kernel, const Arguments &args) {
    int64_t inner = args.divisor(2);
    bool many = kernel.name == "_BinaryElementWiseRhsPerChannelBatchN";
    int64_t channels = many ? args.divisor(3) : INT64_MAX;
    return binary(kernel.given[0], kernel.given[1], operation_of(kernel, 3),
                  {args.at<void *>(0), args.at<void *>(1), args.at<void *>(many ? 4 : 3), args.at<int>(many ? 6 : 5),
                   walking(true), [=](int64_t i) { return i / inner % channels; }});
}

Work broadcast(const Kernel &kernel, const Arguments &args) {
    auto divisors = args.array<std::array<uint32_t, 3>>(5);
    auto place = [&](int k) {
        return kernel.given[4 + k] == "true" ? strided(args.array<int64_t>(1 + 2 * k), divisors) : walking(true);
    };
    return binary(kernel.given[0], kernel.given[1], operation_of(kernel, 3),
                  {args.at<void *>(2), args.at<void *>(4), args.at<void *>(6), args.at<int>(8), place(0), place(1)});
}

Work unary(const Kernel &kernel, const Arguments &args) {
    auto from = args.at<void *>(0), to = args.at<void *>(1);
    auto size = args.at<int64_t>(3);
    auto operation = operation_of(kernel, 2);
    return with_answer(kernel.given[0], [&](auto zero) {
        using T = decltype(zero);
        if (operation == "Div") return each<T, T>(from, to, size, [by = args.at<T>(2)](T x) { return T(x / by); });
        if (operation != "Cast") return each<T, T>(from, to, size, function<T>(operation));
        return with_answer(kernel.given[1], [&](auto other) {
            using U = decltype(other);
            return each<T, U>(from, to, size, [](T x) { return U(x); });
        });
    });
}

Work choose(const Kernel &kernel, const Arguments &args) {
    auto divisors = args.array<std::array<uint32_t, 3>>(7);
    auto place = [&](int k) {
        if (how(kernel, k) == '2') return strided(args.array<int64_t>(1 + 2 * k), divisors);
        return walking(how(kernel, k) == '0');
    };
    return where(kernel, args, {2, 4, 6, 8, 9}, {place(0), place(1), place(2)});
}

Work choose_simple(const Kernel &kernel, const Arguments &args) {
    auto place = [&](int k) { return walking(how(kernel, k) == '0'); };
    return where(kernel, args, {0, 1, 2, 3, 4}, {place(0), place(1), place(2)});
}

Work clip(const Kernel &kernel, const Arguments &args) {
    return with_number(kernel.given[0], [=](auto zero) -> Work {
        using T = decltype(zero);
        auto from = args.at<T *>(0), to = args.at<T *>(1), low = args.at<T *>(2), high = args.at<T *>(3);
        auto lowest = args.at<T>(4), highest = args.at<T>(5);
        auto size = args.at<size_t>(6);
        return [=] {
            auto least = low ? *reach(low, "clip") : lowest, most = high ? *reach(high, "clip") : highest;
            std::transform(reach(from, "clip"), reach(from, "clip") + size, reach(to, "clip"),
                           [=](T x) { return x < least ? least : x > most ? most : x; });
        };
    });
}
