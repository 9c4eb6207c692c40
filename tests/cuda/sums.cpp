// Sums over rows and columns, and what fills memory by a rule.

#include "kernels.hpp"

namespace {

// Of a matrix `[n, m]`.
Work sums(const std::string &type, bool of_rows, int n, int m, const void *from, void *to) {
    return with_number(type, [=](auto zero) -> Work {
        using T = decltype(zero);
        return [=] {
            auto x = static_cast<const T *>(reach(from, "sums"));
            std::vector<double> sum(of_rows ? n : m);
            for (int i = 0; i < n; i++)
                for (int k = 0; k < m; k++) sum[of_rows ? i : k] += double(x[int64_t(i) * m + k]);
            std::transform(sum.begin(), sum.end(), static_cast<T *>(reach(to, "sums")), [](double one) { return T(one); });
        };
    });
}

} // namespace

Work sum_of_rows(const Kernel &kernel, const Arguments &args) {
    if (kernel.given[3].find("Identity") == std::string::npos) stop("sums of %s", kernel.given[3].c_str());
    return sums(kernel.given[0], true, args.at<int>(0), args.at<int>(1), args.at<void *>(2), args.at<void *>(3));
}

Work sum_of_columns(const Kernel &kernel, const Arguments &args) {
    return sums(kernel.given[0], false, args.at<int>(2), args.at<int>(3), args.at<void *>(0), args.at<void *>(1));
}

Work bias(const Kernel &kernel, const Arguments &args) {
    return with_number(kernel.given[0], [=](auto zero) -> Work {
        using T = decltype(zero);
        auto from = args.at<T *>(0), to = args.at<T *>(1);
        auto size = args.at<int64_t>(2), columns = args.divisor(3);
        auto by_row = args.at<int>(4), by_column = args.at<int>(5);
        auto scale = args.at<T>(6);
        return [=] {
            for (int64_t i = 0; i < size; i++)
                reach(to, "bias")[i] = scale * reach(from, "bias")[i / columns * by_row + i % columns * by_column];
        };
    });
}

Work range(const Kernel &, const Arguments &args) {
    auto first = args.at<int64_t>(0), step = args.at<int64_t>(1), size = args.at<int64_t>(2);
    auto to = args.at<int64_t *>(3);
    return [=] {
        for (int64_t i = 0; i < size; i++) reach(to, "range")[i] = first + i * step;
    };
}
