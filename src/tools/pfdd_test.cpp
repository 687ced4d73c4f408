// pfdd's copies between files and a volume, over sockets, against a cluster in memory.
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>
#include <utility>

#include "client/client_test.hpp"
#include "runtime/uring/reactor_thread.hpp"
#include "tools/pfdd_copy.hpp"
#include "tools/pfdd_report.hpp"

namespace pf::tools {
namespace {

// A copy that is about to run.
struct Prepared {
    DdOptions options;
    Cluster cluster;
    Endpoint input;
    Endpoint output;
    std::optional<Copy> copy;
};

// A source that has no more for now.
class Pipe {
  public:
    Pipe() { EXPECT_EQ(::pipe(ends_), 0); }
    Pipe(const Pipe&) = delete;
    Pipe& operator=(const Pipe&) = delete;
    ~Pipe() {
        end();
        ::close(ends_[0]);
    }
    [[nodiscard]] std::string operand() const { return fmt::format("if=/dev/fd/{}", ends_[0]); }
    void put(size_t bytes) {
        const std::vector<std::byte> data(bytes, std::byte{0xff});
        EXPECT_EQ(::write(ends_[1], data.data(), bytes), static_cast<ssize_t>(bytes));
    }
    void end() { ::close(std::exchange(ends_[1], -1)); }

  private:
    int ends_[2]{};
};

class Pfdd : public ::testing::Test {
  public:
    Pfdd() {
        runtime::UringOptions options;
        options.register_arena = false;
        group = std::move(*runtime::ReactorGroup::start({options}));
        const uint16_t rpc_port = group->call(0, [this] {
            store_server = std::move(*net::Server::listen({"127.0.0.1", 0}, store));
            conductor_server = std::move(*net::Server::listen({"127.0.0.1", 0}, conductor));
            conductor.store_address = store_server->local().text();
            return conductor_server->local().port;
        });
        conductor_text = fmt::format("127.0.0.1:{}", rpc_port - conductor_rpc_from_http);
        std::filesystem::create_directories(folder);
    }
    ~Pfdd() override {
        group->call(0, [this] { return stop(this); });
        group.reset();
        std::filesystem::remove_all(folder);
    }
    static runtime::Task<bool> stop(Pfdd* test) {
        co_await test->store_server->stop();
        co_await test->conductor_server->stop();
        test->store_server.reset();
        test->conductor_server.reset();
        co_return true;
    }
    Status prepare(Prepared& to, const std::vector<std::string>& operands) const {
        std::vector<const char*> argv{"pfdd"};
        for (const std::string& operand : operands) argv.push_back(operand.c_str());
        PF_TRY_ASSIGN(to.options, parse_dd_options(static_cast<int>(argv.size()), argv.data()));
        PF_TRY(to.cluster.connect(conductor_text, to.options.depth));
        PF_TRY(to.input.open(to.options.input, Endpoint::Use::input, to.cluster));
        PF_TRY(to.output.open(to.options.output, Endpoint::Use::output, to.cluster));
        to.copy.emplace(to.options, to.cluster, to.input, to.output);
        return to.copy->prepare();
    }
    Status copy(const std::vector<std::string>& operands) {
        Prepared prepared;
        PF_TRY(prepare(prepared, operands));
        hand_over();
        const Status done = prepared.copy->run([] { return false; }, [] {});
        hand_over();
        counts = prepared.copy->counts();
        return done;
    }
    // Answers what was held back, so that nothing uses the memory of a copy that gave up.
    void release(Prepared& prepared) {
        store.hold_states = false;
        group->call(0, [this] { return store.hold_reads = false; });
        while (prepared.copy->busy()) prepared.cluster.poll(1000);
    }
    // The fake's bytes belong to its thread while it copies and to the test's otherwise. That one
    // waits for the other's answers is nothing that TSan sees.
    void hand_over() {
        group->call(0, [] { return true; });
    }
    [[nodiscard]] std::string path(const std::string& name) const { return folder + "/" + name; }
    void make_file(const std::string& name, const std::vector<std::byte>& bytes) const {
        std::ofstream file(path(name), std::ios::binary);
        file.write(reinterpret_cast<const char*>(bytes.data()),
                   static_cast<std::streamsize>(bytes.size()));
    }
    [[nodiscard]] std::vector<std::byte> file_bytes(const std::string& name) const {
        std::ifstream file(path(name), std::ios::binary);
        const std::string text((std::istreambuf_iterator<char>(file)), {});
        const Bytes bytes = as_bytes(text);
        return {bytes.begin(), bytes.end()};
    }

    client::FakeTray tray;
    client::FakeStore store{tray};
    client::FakeConductor conductor{tray};
    std::unique_ptr<runtime::ReactorGroup> group;
    std::unique_ptr<net::Server> store_server;
    std::unique_ptr<net::Server> conductor_server;
    std::string conductor_text;
    std::string folder = testing::TempDir() + "pfdd_test." + std::to_string(::getpid());
    CopyCounts counts;
};

TEST_F(Pfdd, CopiesBothWaysInEveryShape) {
    const auto bytes = client::pattern(3'000'123, 1);
    make_file("in", bytes);
    for (const char* block : {"bs=4k", "bs=65024", "bs=1M", "bs=8M"}) {
        for (const char* depth : {"iodepth=1", "iodepth=4", "iodepth=64"}) {
            SCOPED_TRACE(std::string(block) + " " + depth);
            std::ranges::fill(tray.bytes, std::byte{0xff});
            const Status written = copy({"if=" + path("in"), "of=pf:v", block, depth});
            ASSERT_TRUE(written.has_value()) << written.error().text();
            EXPECT_EQ(counts.bytes, bytes.size());
            EXPECT_EQ(counts.padded_bytes, 512 - bytes.size() % 512);
            EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), tray.bytes.begin()));
            EXPECT_EQ(tray.bytes[round_up(bytes.size(), 512) - 1], std::byte{0});
            EXPECT_EQ(tray.bytes[round_up(bytes.size(), 512)], std::byte{0xff});
            const Status read =
                copy({"if=pf:v", "of=" + path("out"), block, depth, "count=3000123B"});
            ASSERT_TRUE(read.has_value()) << read.error().text();
            EXPECT_TRUE(file_bytes("out") == bytes);
        }
    }
}

TEST(StallWatch, SaysOnceThatAVolumeDoesNotAnswer) {
    StallWatch::Time now;
    StallWatch watch(now);
    CopyCounts counts;
    // How often it was said in so many tenths of a second.
    const auto wait = [&](int tenths, bool busy) {
        int said = 0;
        for (int i = 0; i < tenths; ++i) {
            now += std::chrono::milliseconds(100);
            said += watch.notice(counts, busy, now) ? 1 : 0;
        }
        return said;
    };
    EXPECT_EQ(wait(90, true), 0);
    counts.full_out = 1;
    EXPECT_EQ(wait(90, true), 0);
    EXPECT_EQ(wait(300, true), 1);
    counts.partial_out = 1;
    EXPECT_EQ(wait(110, true), 1) << "another stall";
    EXPECT_EQ(wait(300, false), 0) << "nothing is under way";
    EXPECT_EQ(wait(50, true), 0);
    now += std::chrono::seconds(60);  // it was blocked elsewhere, as in reading a pipe
    EXPECT_EQ(wait(90, true), 0);
    EXPECT_EQ(wait(20, true), 1);
}

// Large blocks take long to be read before the first of them is written.
TEST(StallWatch, regression_a_block_that_was_read_is_no_stall) {
    StallWatch::Time now;
    StallWatch watch(now);
    CopyCounts counts;
    for (int i = 0; i < 300; ++i) {
        now += std::chrono::milliseconds(100);
        if (i % 50 == 0) ++counts.full_in;
        EXPECT_FALSE(watch.notice(counts, true, now)) << i;
    }
}

TEST_F(Pfdd, SkipsSeeksAndMakesHoles) {
    std::vector<std::byte> bytes(1u << 20);
    bytes[500'000] = std::byte{1};
    make_file("in", bytes);
    std::ranges::fill(tray.bytes, std::byte{0xff});
    Status done = copy({"if=" + path("in"), "of=pf:v", "bs=4096", "skip=2", "seek=3", "count=200",
                        "conv=sparse,notrunc"});
    ASSERT_TRUE(done.has_value()) << done.error().text();
    EXPECT_TRUE(std::equal(bytes.begin() + 8192, bytes.begin() + 202 * 4096,
                           tray.bytes.begin() + 3 * 4096));
    EXPECT_EQ(tray.bytes[203 * 4096], std::byte{0xff});
    done = copy({"if=pf:v", "of=" + path("out"), "bs=4096", "skip=3", "count=200", "conv=sparse"});
    ASSERT_TRUE(done.has_value()) << done.error().text();
    EXPECT_EQ(file_bytes("out").size(), 200u * 4096);
    EXPECT_TRUE(
        std::equal(bytes.begin() + 8192, bytes.begin() + 202 * 4096, file_bytes("out").begin()));
}

TEST_F(Pfdd, NeitherReadsNorWritesHoles) {
    // Nothing but one block, in a source that is far larger than what is read of it.
    make_file("in", {});
    std::filesystem::resize_file(path("in"), client::test_volume_bytes);
    std::fstream file(path("in"), std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(5 << 20);
    file.put('x');
    file.close();
    std::ranges::fill(tray.bytes, std::byte{0});
    Status done = copy({"if=" + path("in"), "of=pf:v", "bs=64k", "conv=sparse"});
    ASSERT_TRUE(done.has_value()) << done.error().text();
    EXPECT_EQ(counts.bytes, client::test_volume_bytes);
    EXPECT_EQ(counts.full_in, client::test_volume_bytes / 65536);
    EXPECT_EQ(counts.full_out, counts.full_in);
    EXPECT_LE(tray.applied, 2u) << "the target's holes are left alone";
    EXPECT_EQ(tray.bytes[5 << 20], std::byte{'x'});

    // Into a target that holds something, holes are zeroed.
    std::ranges::fill(tray.bytes, std::byte{0xff});
    done = copy({"if=" + path("in"), "of=pf:v", "bs=64k", "conv=sparse"});
    ASSERT_TRUE(done.has_value()) << done.error().text();
    tray.bytes[5 << 20] = std::byte{0};
    EXPECT_TRUE(std::ranges::all_of(tray.bytes, [](std::byte b) { return b == std::byte{0}; }));

    // A volume's holes are not read.
    tray.bytes[5 << 20] = std::byte{'x'};
    store.reads = 0;
    done = copy({"if=pf:v", "of=" + path("out"), "bs=64k", "conv=sparse"});
    ASSERT_TRUE(done.has_value()) << done.error().text();
    EXPECT_LE(store.reads, 2u);
    EXPECT_TRUE(file_bytes("out") == file_bytes("in"));
    done =
        copy({"if=pf:v", "of=" + path("out"), "bs=64k", "conv=sparse,notrunc", "count=3000001B"});
    ASSERT_TRUE(done.has_value()) << done.error().text();
    EXPECT_EQ(counts.bytes, 3000001u);
    EXPECT_EQ(counts.partial_out, 1u);
}

TEST_F(Pfdd, RefusesToOverwriteItsOwnSource) {
    const auto bytes = client::pattern(100'000, 4);
    make_file("in", bytes);
    EXPECT_FALSE(copy({"if=" + path("in"), "of=" + path("in")}).has_value());
    EXPECT_TRUE(file_bytes("in") == bytes);
    EXPECT_TRUE(copy({"if=" + path("in"), "of=" + path("in"), "conv=notrunc"}).has_value());
    EXPECT_TRUE(file_bytes("in") == bytes);
    EXPECT_FALSE(copy({"if=pf:v", "of=pf:v", "bs=4k", "seek=1"}).has_value());
    EXPECT_TRUE(copy({"if=pf:v", "of=pf:v", "bs=4k", "seek=8", "count=8"}).has_value());
    EXPECT_TRUE(copy({"if=pf:v", "of=pf:v", "bs=4k"}).has_value());
}

TEST_F(Pfdd, RefusesWithAClearLine) {
    make_file("big", std::vector<std::byte>(client::test_volume_bytes + 1));
    const Status large = copy({"if=" + path("big"), "of=pf:v"});
    ASSERT_FALSE(large.has_value());
    EXPECT_NE(large.error().message.find("do not fit"), std::string::npos);
    EXPECT_EQ(tray.applied, 0u);
    EXPECT_FALSE(copy({"if=pf:missing", "of=/dev/null"}).has_value());
    EXPECT_FALSE(copy({"if=pf:v", "of=/dev/null", "bs=1000"}).has_value());
    EXPECT_FALSE(copy({"if=pf:v", "of=/dev/null", "bs=0"}).has_value());
    EXPECT_FALSE(copy({"if=pf:v", "of=/dev/null", "conv=lcase"}).has_value());
    EXPECT_FALSE(copy({"iff=pf:v"}).has_value());
    for (const char* wrong :
         {"count=", "conv=", "skip=", "seek=", "bs=", "iodepth=", "bs=-1", "count=-1"}) {
        const Status refused = copy({"if=pf:v", "of=/dev/null", wrong});
        ASSERT_FALSE(refused.has_value()) << wrong;
        EXPECT_TRUE(refused.error().message.starts_with(wrong)) << refused.error().message;
    }
    const Status endless = copy({"if=/dev/zero", "of=pf:v"});
    ASSERT_FALSE(endless.has_value());
    EXPECT_EQ(endless.error().code, Errc::no_space);
    EXPECT_EQ(counts.bytes, client::test_volume_bytes);
}

// Files of /proc have a size of 0 and content: nothing was copied, and that was success.
TEST_F(Pfdd, regression_a_file_that_says_it_is_empty_is_read) {
    std::ifstream file("/proc/version", std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    ASSERT_FALSE(text.empty());
    for (const char* more : {"bs=1M", "conv=sparse", "count=1", "count=1B"}) {
        SCOPED_TRACE(more);
        const Status done = copy({"if=/proc/version", "of=" + path("out"), more});
        ASSERT_TRUE(done.has_value()) << done.error().text();
        const size_t wanted = more == std::string("count=1B") ? 1 : text.size();
        EXPECT_TRUE(std::ranges::equal(file_bytes("out"), as_bytes(text).first(wanted)));
    }
    const Status written = copy({"if=/proc/version", "of=pf:v"});
    ASSERT_TRUE(written.has_value()) << written.error().text();
    EXPECT_TRUE(std::ranges::equal(as_bytes(text), Bytes(tray.bytes).first(text.size())));

    // That its size is not believed does not make an empty file a hole as long as the count.
    make_file("empty", {});
    const Status nothing =
        copy({"if=" + path("empty"), "of=" + path("out"), "count=9", "conv=sparse"});
    ASSERT_TRUE(nothing.has_value()) << nothing.error().text();
    EXPECT_EQ(counts.bytes, 0u);
    EXPECT_TRUE(file_bytes("out").empty());
}

// A device can be positioned, but not truncated: what is under a hole stays unless it is written.
TEST_F(Pfdd, regression_zeros_are_written_to_what_cannot_be_truncated) {
    make_file("zeros", std::vector<std::byte>(1u << 20));
    make_file("hole", {});
    std::filesystem::resize_file(path("hole"), 1u << 20);
    for (const char* source : {"zeros", "hole"}) {
        SCOPED_TRACE(source);
        const Status done = copy({"if=" + path(source), "of=/dev/full", "conv=sparse"});
        EXPECT_EQ(done ? Errc::ok : done.error().code, Errc::no_space);
    }
}

// With NFS or a quota the close may be the first to say that something was not written.
TEST_F(Pfdd, regression_an_error_of_closing_the_target_is_reported) {
    const std::string target = path("out");
    DdOptions options;
    options.input = "/dev/null";
    options.output = target;
    Cluster cluster;
    Endpoint input;
    Endpoint output;
    ASSERT_TRUE(input.open(options.input, Endpoint::Use::input, cluster).has_value());
    ASSERT_TRUE(output.open(options.output, Endpoint::Use::output, cluster).has_value());
    Copy copy(options, cluster, input, output);
    ASSERT_TRUE(copy.prepare().has_value());
    int closed = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code gone;  // the iterator's own is among them
        if (std::filesystem::read_symlink(entry, gone) != std::filesystem::absolute(target))
            continue;
        const std::string number = entry.path().filename();
        int fd = -1;
        std::from_chars(number.data(), number.data() + number.size(), fd);
        closed += ::close(fd) == 0 ? 1 : 0;
    }
    ASSERT_EQ(closed, 1);
    const Status done = copy.run([] { return false; }, [] {});
    ASSERT_FALSE(done.has_value());
    EXPECT_TRUE(done.error().message.starts_with("cannot close '" + target + "'"))
        << done.error().message;
}

// While it asked what a volume holds, a copy said nothing to whom it reports to.
TEST_F(Pfdd, regression_waiting_for_an_answer_about_holes_is_reported) {
    Prepared prepared;
    const Status opened = prepare(prepared, {"if=pf:v", "of=" + path("out"), "conv=sparse"});
    ASSERT_TRUE(opened.has_value()) << opened.error().text();
    store.hold_states = true;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    const auto stop = [&] { return std::chrono::steady_clock::now() > end; };
    int reported = 0;
    const auto tick = [&] {
        if (prepared.copy->busy() && store.hold_states.exchange(false)) ++reported;
    };
    const Status done = prepared.copy->run(stop, tick, std::chrono::milliseconds(200));
    EXPECT_TRUE(done.has_value()) << done.error().text();
    EXPECT_EQ(reported, 1);
    release(prepared);
}

// What was read from a pipe stayed in pfdd until the pipe had more.
TEST_F(Pfdd, regression_a_quiet_pipe_does_not_hold_back_what_was_read) {
    Pipe pipe;
    Prepared prepared;
    const Status opened = prepare(prepared, {pipe.operand(), "of=pf:v", "bs=4k"});
    ASSERT_TRUE(opened.has_value()) << opened.error().text();
    pipe.put(4096);
    bool arrived = false;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    std::thread producer([&] {
        while (!arrived && std::chrono::steady_clock::now() < end)
            arrived = group->call(0, [this] { return tray.applied > 0; });
        pipe.end();
    });
    const Status done = prepared.copy->run([] { return false; }, [] {});
    producer.join();
    EXPECT_TRUE(done.has_value()) << done.error().text();
    EXPECT_TRUE(arrived) << "only when the pipe was closed";
    EXPECT_EQ(prepared.copy->counts().bytes, 4096u);
}

// An error of the volume was not seen before the pipe had more.
TEST_F(Pfdd, regression_a_quiet_pipe_does_not_hold_back_an_error) {
    Pipe pipe;
    Prepared prepared;
    const Status opened = prepare(prepared, {pipe.operand(), "of=pf:v", "bs=4k"});
    ASSERT_TRUE(opened.has_value()) << opened.error().text();
    group->call(0, [this] {
        store.force_status = Errc::no_space;
        return true;
    });
    pipe.put(4096);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    const auto stop = [&] { return std::chrono::steady_clock::now() > end; };
    const Status done = prepared.copy->run(stop, [] {});
    EXPECT_FALSE(stop());
    ASSERT_FALSE(done.has_value());
    EXPECT_EQ(done.error().code, Errc::no_space) << done.error().text();
}

// After an error what was under way was waited for without a limit, and a signal hid the error.
TEST_F(Pfdd, regression_after_an_error_a_store_that_is_away_is_given_up) {
    std::ranges::fill(tray.bytes, std::byte{0xff});
    // A hole first: it can be written while the reads of what follows do not end.
    std::ranges::fill(std::span(tray.bytes).first(65536), std::byte{0});
    Prepared prepared;
    const Status opened = prepare(prepared, {"if=pf:v", "of=/dev/full", "bs=64k", "conv=sparse"});
    ASSERT_TRUE(opened.has_value()) << opened.error().text();
    group->call(0, [this] { return store.hold_reads = true; });
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    const auto stop = [&] { return std::chrono::steady_clock::now() > end; };
    int ticks = 0;
    const Status done = prepared.copy->run(stop, [&] { ++ticks; }, std::chrono::milliseconds(200));
    ASSERT_FALSE(done.has_value());
    EXPECT_EQ(done.error().code, Errc::no_space) << done.error().text();
    EXPECT_NE(done.error().message.find("given up"), std::string::npos) << done.error().text();
    EXPECT_TRUE(prepared.copy->gave_up());
    EXPECT_FALSE(stop()) << "it waited for a signal";
    EXPECT_GT(ticks, 1) << "it waited in silence";
    release(prepared);
}

}  // namespace
}  // namespace pf::tools
