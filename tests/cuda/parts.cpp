// Tensors that are joined and cut along an axis.

#include "kernels.hpp"

namespace {

// Parts of one size along an axis, joined or cut: `there` says of every element of the whole which part, and where in it.
template <class F> Work parts(const std::string &type, void *whole, std::vector<void *> each, int64_t size, bool cut, F there) {
    return with_bytes(type, [=](auto zero) -> Work {
        using T = decltype(zero);
        return [=] {
            auto all = static_cast<T *>(reach(whole, "parts"));
            for (int64_t i = 0; i < size; i++) {
                auto [part, at] = there(i);
                auto &element = static_cast<T *>(reach(each[part], "part"))[at];
                (cut ? element : all[i]) = cut ? all[i] : element;
            }
        };
    });
}

auto same_parts(int64_t whole, int64_t inside, int64_t along) {
    return [=](int64_t i) {
        int64_t outer = i / whole, block = i % whole / inside, inner = i % inside;
        return std::pair(block / along, (outer * along + block % along) * inside + inner);
    };
}

// Of which the ends along the axis are given.
auto other_parts(std::vector<int64_t> ends, int64_t inside) {
    return [=](int64_t i) {
        int64_t whole = ends.back(), block = i / inside % whole, outer = i / inside / whole;
        auto part = std::upper_bound(ends.begin(), ends.end(), block) - ends.begin();
        int64_t begin = part ? ends[part - 1] : 0;
        return std::pair(int64_t(part), (outer * (ends[part] - begin) + block - begin) * inside + i % inside);
    };
}

} // namespace

Work concat(const Kernel &kernel, const Arguments &args) {
    return parts(kernel.given[0], args.at<void *>(3), args.array<void *>(4), args.at<int>(5), false,
                 same_parts(args.divisor(0), args.divisor(1), args.divisor(2)));
}

Work split(const Kernel &kernel, const Arguments &args) {
    return parts(kernel.given[0], args.at<void *>(4), args.array<void *>(5), args.at<int>(6), true,
                 same_parts(args.divisor(0), args.divisor(1), args.divisor(2)));
}

Work concat_any(const Kernel &kernel, const Arguments &args) {
    return parts(kernel.given[0], args.at<void *>(3), args.array<void *>(4), args.at<int>(5), false,
                 other_parts(args.array<int64_t>(2), args.divisor(1)));
}

// Sizes, ends and parts are in memory of the device, and so is the part of every place along the axis: read when it is done.
Work split_by_table(const Kernel &kernel, const Arguments &args) {
    int64_t whole = args.divisor(0), inside = args.divisor(1);
    auto sizes = args.at<int64_t *>(2), ends = args.at<int64_t *>(3), part_of = args.at<int64_t *>(4);
    auto count = args.at<int>(5), size = args.at<int>(8);
    auto from = args.at<void *>(6);
    auto to = args.at<void **>(7);
    return [=, type = kernel.given[0]] {
        std::vector<void *> each(reach(to, "split"), reach(to, "split") + count);
        parts(type, from, each, size, true, [=](int64_t i) {
            int64_t outer = i / whole, block = i % whole / inside, part = reach(part_of, "split")[block];
            int64_t begin = part ? reach(ends, "split")[part - 1] : 0;
            return std::pair(part, (outer * reach(sizes, "split")[part] + block - begin) * inside + i % inside);
        })();
    };
}

Work split_any(const Kernel &kernel, const Arguments &args) {
    auto ends = args.array<int64_t>(0); // in bytes
    int64_t width = with_bytes(kernel.given[0], [](auto zero) { return int64_t(sizeof zero); }), sum = 0;
    for (auto &end : ends) end = sum += end / width;
    return parts(kernel.given[0], args.at<void *>(1), args.array<void *>(2), args.at<int>(4), true, other_parts(ends, 1));
}
