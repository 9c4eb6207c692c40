// Axes in another order, repeated, cut, and read backwards.

#include "kernels.hpp"

namespace {

// Each element of the result from its place; below 0: there is none, and the result is 0.
Work moved(const std::string &type, const void *from, void *to, int64_t size, Place place) {
    return with_bytes(type, [=](auto zero) -> Work {
        using T = decltype(zero);
        return [=] {
            auto x = static_cast<const T *>(reach(from, "move"));
            auto y = static_cast<T *>(reach(to, "move"));
            for (int64_t i = 0; i < size; i++)
                if (int64_t at = place(i); at < 0) y[i] = 0;
                else y[i] = x[at];
        };
    });
}

} // namespace

Work transpose(const Kernel &kernel, const Arguments &args) {
    return moved(kernel.given[0], args.at<void *>(2), args.at<void *>(4), args.at<int>(5),
                 strided(args.array<int64_t>(1), args.array<std::array<uint32_t, 3>>(3)));
}

Work expand(const Kernel &kernel, const Arguments &args) {
    return moved(kernel.given[0], args.at<void *>(2), args.at<void *>(3), args.at<int>(1),
                 strided(args.array<int64_t>(5), args.array<std::array<uint32_t, 3>>(4)));
}

Work expand_matrix(const Kernel &kernel, const Arguments &args) {
    int64_t columns = args.divisor(3), by_row = args.at<int>(4), by_column = args.at<int>(5);
    return moved(kernel.given[0], args.at<void *>(1), args.at<void *>(2), args.at<int>(0),
                 [=](int64_t i) { return i / columns * by_row + i % columns * by_column; });
}

Work slice(const Kernel &kernel, const Arguments &args) {
    if (kernel.given[0] != "false") stop("Slice: expected no gradient");
    auto starts = args.array<int64_t>(0), steps = args.array<int64_t>(1), strides = args.array<int64_t>(2);
    int64_t first = 0;
    for (size_t k = 0; k < strides.size(); k++) first += starts[k] * strides[k], strides[k] *= steps[k];
    auto place = strided(strides, args.array<std::array<uint32_t, 3>>(3));
    return moved(kernel.given[2], args.at<void *>(4), args.at<void *>(5), args.at<int>(6),
                 [=](int64_t i) { return first + place(i); });
}

// Each sequence up to its length, what pads stays. Lengths are read when it is done, as the rest is.
Work reverse(const Kernel &kernel, const Arguments &args) {
    if (kernel.given[1] != "true") stop("ReverseSequence: expected time before the batch");
    auto lengths = args.at<int64_t *>(1);
    int64_t batch = args.at<int>(3), steps = args.at<int>(4), width = args.at<int>(5);
    return moved(kernel.given[0], args.at<void *>(0), args.at<void *>(2), steps * batch * width, [=](int64_t i) {
        int64_t t = i / width / batch, row = i / width % batch, length = reach(lengths, "lengths")[row];
        return ((t < length ? length - 1 - t : t) * batch + row) * width + i % width;
    });
}

// For a recurrence from the end: as above, but what pads is 0.
Work reverse_inputs(const Kernel &kernel, const Arguments &args) {
    auto lengths = args.at<int32_t *>(1);
    int64_t row_of_time = args.at<int>(2), width = args.divisor(4);
    return moved(kernel.given[0], args.at<void *>(5), args.at<void *>(6), args.at<int>(7), [=](int64_t i) {
        int64_t t = i / row_of_time, offset = i % row_of_time, from = reach(lengths, "lengths")[offset / width] - 1 - t;
        return from < 0 ? -1 : from * row_of_time + offset;
    });
}

// Rows of as many times 16 bytes as a block has threads; where the rows are goes by the block's place and d2.
Work transpose_rows(const Kernel &, const Arguments &args) {
    auto from_strides = args.array<int64_t>(0), to_strides = args.array<int64_t>(2);
    auto from = args.at<char *>(1), to = args.at<char *>(3);
    auto rows = args.at<int64_t>(4), width = int64_t(args.block.x) * 16, size = width / from_strides[2];
    return [=, grid = args.grid] {
        auto at = [size](const std::vector<int64_t> &strides, int64_t a, int64_t b, int64_t c) {
            return size * (a * strides[0] + b * strides[1] + c * strides[2]);
        };
        for (unsigned a = 0; a < grid.z; a++)
            for (unsigned b = 0; b < grid.y; b++)
                for (int64_t c = 0; c < rows; c++)
                    std::copy_n(reach(from, "rows") + at(from_strides, a, b, c), width,
                                reach(to, "rows") + at(to_strides, a, b, c));
    };
}
