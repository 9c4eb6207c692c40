// Rows that are read and written by their indices.

#include "kernels.hpp"

#include <set>

Work gather(const Kernel &kernel, const Arguments &args) {
    return with_bytes(kernel.given[0], [=](auto zero) -> Work {
        using T = decltype(zero);
        auto input_block = args.at<int64_t>(0), rows = args.at<int64_t>(1);
        auto output_block = args.divisor(2), block = args.divisor(3);
        auto indices = args.at<void *>(4);
        auto width = args.at<size_t>(5);
        auto from = args.at<T *>(6), to = args.at<T *>(7);
        auto size = args.at<int>(8);
        return [=] {
            auto at = reach(indices, "gather");
            for (int64_t i = 0; i < size; i++) {
                int64_t outer = i / output_block, inner = i % output_block, place = inner / block;
                int64_t row = width == 8 ? static_cast<int64_t *>(at)[place] : static_cast<int32_t *>(at)[place];
                if (row < -rows || row >= rows) stop("Gather: row %ld of %ld", long(row), long(rows));
                if (row < 0) row += rows;
                reach(to, "gather")[i] = reach(from, "gather")[outer * input_block + row * block + inner % block];
            }
        };
    });
}

// Indices of one dimension, as the rows of an arena have. A row that is written twice is not defined on a GPU.
Work scatter(const Kernel &kernel, const Arguments &args) {
    return with_bytes(kernel.given[0], [=](auto zero) -> Work {
        using T = decltype(zero);
        auto to = args.at<T *>(0);
        auto rows = args.at<size_t>(1), width = args.at<size_t>(6);
        auto indices = args.at<int64_t *>(2);
        if (args.at<int64_t>(3) != 1) stop("ScatterND: expected indices of one dimension");
        auto counts = args.at<std::array<int64_t, 2>>(4); // how many elements a step along it has, and its size
        auto from = args.at<T *>(5);
        return [=] {
            std::set<int64_t> written;
            for (size_t k = 0; k < rows; k++) {
                int64_t row = reach(indices, "scatter")[k];
                if (row < 0 || row >= counts[1]) stop("ScatterND: row %ld of %ld", long(row), long(counts[1]));
                if (!written.insert(row).second) stop("ScatterND: row %ld is written twice", long(row));
                std::copy_n(reach(from, "scatter") + k * width, width, reach(to, "scatter") + row * counts[0]);
            }
        };
    });
}
