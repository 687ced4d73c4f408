#include "tools/pfdd_options.hpp"

#include <fmt/format.h>

#include <limits>

#include "base/units.hpp"

namespace pf::tools {

namespace {

constexpr uint64_t max_block_bytes = uint64_t{64} << 20;
constexpr uint64_t max_depth = 1024;

std::unexpected<Error> refuse(std::string message) {
    return fail(Errc::invalid_argument, std::move(message));
}

Result<uint64_t> parse_number(std::string_view name, std::string_view text) {
    auto number = parse_size(text);
    if (number) return number;
    return refuse(fmt::format("{}={}: {}", name, text, number.error().message));
}

using Position = std::optional<std::string>;

// A number of blocks, or of bytes if it ends in B as in "10B" or "4KiB".
Result<uint64_t> parse_position(std::string_view name, const Position& text, uint64_t block_bytes) {
    if (!text) return 0;
    PF_TRY_ASSIGN(const uint64_t number, parse_number(name, *text));
    if (text->ends_with('B')) return number;
    if (number > std::numeric_limits<uint64_t>::max() / block_bytes / 2)
        return refuse(fmt::format("{}={}: so many blocks of {} bytes are too many", name, *text,
                                  block_bytes));
    return number * block_bytes;
}

Status parse_conv(DdOptions& options, std::string_view value) {
    for (bool more = true; more;) {
        const size_t comma = value.find(',');
        const std::string_view word = value.substr(0, comma);
        if (word == "fsync" || word == "fdatasync") {
            options.fsync = true;
        } else if (word == "sparse") {
            options.sparse = true;
        } else if (word == "notrunc") {
            options.no_truncate = true;
        } else {
            return refuse(
                fmt::format("conv={}: only fsync, fdatasync, sparse and notrunc are known", word));
        }
        more = comma != std::string_view::npos;
        if (more) value = value.substr(comma + 1);
    }
    return {};
}

Status parse_status(DdOptions& options, std::string_view value) {
    if (value == "none") {
        options.status = DdOptions::Status::none;
    } else if (value == "noxfer") {
        options.status = DdOptions::Status::noxfer;
    } else if (value == "progress") {
        options.status = DdOptions::Status::progress;
    } else {
        return refuse(fmt::format("status={}: only none, noxfer and progress are known", value));
    }
    return {};
}

struct Positions {
    Position count;
    Position skip;
    Position seek;
};

Status parse_operand(DdOptions& options, Positions& positions, std::string_view name,
                     std::string_view value) {
    if (name == "if") {
        options.input = value;
    } else if (name == "of") {
        options.output = value;
    } else if (name == "bs") {
        PF_TRY_ASSIGN(options.block_bytes, parse_number(name, value));
        if (options.block_bytes == 0 || options.block_bytes > max_block_bytes)
            return refuse(fmt::format("bs={}: allowed is 1 to 64M", value));
    } else if (name == "count") {
        positions.count.emplace(value);
    } else if (name == "skip") {
        positions.skip.emplace(value);
    } else if (name == "seek") {
        positions.seek.emplace(value);
    } else if (name == "iodepth") {
        PF_TRY_ASSIGN(const uint64_t depth, parse_number(name, value));
        if (depth == 0 || depth > max_depth)
            return refuse(fmt::format("iodepth={}: allowed is 1 to 1024", value));
        options.depth = static_cast<uint32_t>(depth);
    } else if (name == "conv") {
        return parse_conv(options, value);
    } else if (name == "status") {
        return parse_status(options, value);
    } else {
        return refuse(fmt::format("unknown operand '{}=': see pfdd --help", name));
    }
    return {};
}

// The block size counts wherever it stands, so positions are read last.
Status resolve(DdOptions& options, const Positions& positions) {
    const uint64_t block = options.block_bytes;
    if (positions.count) {
        PF_TRY_ASSIGN(options.count_bytes, parse_position("count", positions.count, block));
    }
    PF_TRY_ASSIGN(options.skip_bytes, parse_position("skip", positions.skip, block));
    PF_TRY_ASSIGN(options.seek_bytes, parse_position("seek", positions.seek, block));
    if (!volume_name(options.input) && !volume_name(options.output)) return {};
    for (const auto& [name, value] : {std::pair{"bs", options.block_bytes},
                                      {"skip", options.skip_bytes},
                                      {"seek", options.seek_bytes}}) {
        if (value % sector_bytes != 0)
            return refuse(fmt::format(
                "{} is {} bytes: with a volume it has to be a multiple of 512", name, value));
    }
    return {};
}

}  // namespace

std::optional<std::string> volume_name(const std::string& operand) {
    if (!operand.starts_with("pf:")) return {};
    return operand.substr(3);
}

Result<DdOptions> parse_dd_options(int argc, const char* const* argv) {
    DdOptions options;
    Positions positions;
    for (int i = 1; i < argc; ++i) {
        const std::string_view argument = argv[i];
        if (argument == "--help" || argument == "-h") {
            options.help = true;
        } else if (argument == "--version") {
            options.version = true;
        } else if (argument == "--conductor") {
            if (++i == argc) return refuse("--conductor needs HOST:PORT");
            options.conductor = argv[i];
        } else if (argument.starts_with("--conductor=")) {
            options.conductor = argument.substr(12);
        } else if (const size_t equals = argument.find('=');
                   equals != std::string_view::npos && !argument.starts_with('-')) {
            PF_TRY(parse_operand(options, positions, argument.substr(0, equals),
                                 argument.substr(equals + 1)));
        } else {
            return refuse(fmt::format("'{}' is not NAME=VALUE: see pfdd --help", argument));
        }
    }
    PF_TRY(resolve(options, positions));
    return options;
}

const char* dd_help() {
    return R"(Usage: pfdd if=SOURCE of=TARGET [OPERAND]...
Copies between files and PureFlash volumes.

  if=FILE|-|pf:NAME   read from a file, standard input (the default) or a volume
  of=FILE|-|pf:NAME   write to a file, standard output (the default) or a volume
  bs=SIZE             bytes at a time (default 1M, at most 64M)
  count=N             copy N blocks only; with a B at the end (10MB, 512B) N bytes
  skip=N  seek=N      begin N blocks (or bytes) into the source, into the target
  iodepth=N           I/Os in flight on a volume (default 16)
  conv=LIST           fsync: make the target durable before ending (a volume always is)
                      sparse: blocks of zeros become holes
                      notrunc: do not truncate the target file
  status=WHAT         progress, noxfer (no speed), none; a terminal gets a progress bar
  --conductor H:P     the conductor (default: PF_CONDUCTOR, then 127.0.0.1:49180)

Sizes take K, M, G, T and P, powers of 1024.
)";
}

}  // namespace pf::tools
