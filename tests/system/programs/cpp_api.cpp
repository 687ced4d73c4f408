// A program on pfbd.hpp: a coroutine per job, run by the library's thread and by poll(). Argument:
// the name of a volume to make.
#include <atomic>
#include <coroutine>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <pfbd.hpp>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Job {
    struct promise_type {
        Job get_return_object() { return {}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() { std::terminate(); }
    };
};

void check(bool good, const char* what) {
    if (good) return;
    std::fprintf(stderr, "failed: %s: %s\n", what, pfbd_error_text());
    std::exit(1);
}

Job copy_a_block(pfbd::Volume& volume, std::atomic<int>& left) {
    std::vector<char> out(8192, 'x');
    std::vector<char> in(8192);
    const int written = co_await volume.write(out.data(), out.size(), 4096);
    check(written == 0, "write");
    const int read = co_await volume.read(in.data(), in.size(), 4096);
    check(read == 0 && in == out, "read");
    const int zeroed = co_await volume.write_zeroes(4096, 4096);
    check(zeroed == 0, "write_zeroes");
    pfbd_extent extents[4];
    uint32_t count = 4;
    const int asked = co_await volume.block_states(16384, 0, extents, count);
    check(asked == 0 && count > 1, "block_states");
    const int flushed = co_await volume.flush();
    check(flushed == 0, "flush");
    --left;
}

}  // namespace

int main(int argc, char** argv) {
    check(argc == 2, "usage: NAME");
    for (const bool caller_thread : {false, true}) {
        pfbd::Context context({.caller_thread = caller_thread, .io_timeout_ms = 30000});
        context.create_volume(argv[1], 64 << 20);
        try {
            context.create_volume(argv[1], 64 << 20);
            check(false, "a second volume of the name");
        } catch (const pfbd::Error& error) {
            check(error.code().value() == EEXIST, error.what());
        }
        const std::string second = std::string(argv[1]) + "-2";
        context.create_volume(second, 1 << 20);
        const auto listed = context.list_volumes();
        check(listed.size() == 2 && listed[0].name == argv[1] && listed[0].size_bytes == 64 << 20,
              "list");
        check(listed[1].name == second && listed[1].size_bytes == 1 << 20, "list in order");
        context.delete_volume(second);
        {
            pfbd::Volume volume(context, argv[1]);
            check(volume.info().size_bytes == 64 << 20, "size");
            std::atomic<int> left = 1;
            copy_a_block(volume, left);
            while (left > 0) {
                if (caller_thread)
                    context.poll(100'000);
                else
                    std::this_thread::yield();
            }
        }
        context.delete_volume(argv[1]);
        check(!context.volume_exists(argv[1]), "deleted");
    }
    std::printf("ok %s\n", pfbd_version());
}
