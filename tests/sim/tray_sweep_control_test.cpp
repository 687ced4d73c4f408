// The n-th disk operation fails, for every n, while a tray does one thing other than a write: its
// shards, generations, sessions, an accepted loss, a checkpoint, what is read of older generations.
// It ends with success or an I/O error; after a restart what it answered for is there, everything
// else is as it was, and asking again leads to what was wanted.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>

#include "tray/on_disk_test.hpp"
#include "tray_rig.hpp"

namespace pf::test {
namespace {

using runtime::Task;
using runtime::sim::Medium;

constexpr Tag a = 1000, b = 2000, c = 3000;
constexpr tray::ShardId main_shard = rig_shard;
constexpr tray::ShardId damaged_shard = 8;
constexpr tray::ShardId spare_shard = 9;
constexpr tray::ShardId new_shard = 11;
constexpr tray::ShardId first_of_many = 200, first_new_of_many = 400;
constexpr tray::ShardId many = 70;  // more than share their flushes
constexpr uint64_t session = 5;
const tray::RequestName open_request{session, 2, 1};

struct Operation {
    const char* name;
    std::function<Task<Status>(TrayRig&)> perform;
    // What holds once it succeeded, over restarts too.
    std::function<bool(TrayRig&)> done;
    Errc when_repeated = Errc::ok;  // beside ok: there is nothing to do any more
    bool only_reads = false;        // it may fail alone; others fail the tray
};

tray::ShardState state_of(tray::ShardId id) {
    tray::ShardState state;
    state.shard = id;
    state.blocks = TrayRig::shard_blocks;
    state.epoch = 1;
    state.snap_seq = 1;
    return state;
}

Task<Status> create_many(tray::Tray& tray, tray::ShardId first) {
    std::vector<tray::ShardState> states;
    for (tray::ShardId id = first; id < first + many; ++id) states.push_back(state_of(id));
    const std::vector<Status> made = co_await tray.create_shards(states);
    const auto failed = std::ranges::find_if(made, [](const Status& each) { return !each; });
    co_return failed == made.end() ? Status{} : *failed;
}
Task<Status> delete_many(tray::Tray& tray) {
    std::vector<tray::ShardId> ids = {spare_shard};
    for (tray::ShardId id = first_of_many; id < first_of_many + many; ++id) ids.push_back(id);
    co_return co_await tray.delete_shards(std::move(ids));
}
tray::ShardId count_of_many(TrayRig& rig, tray::ShardId first) {
    tray::ShardId count = 0;
    for (tray::ShardId id = first; id < first + many; ++id)
        count += rig.tray().shard_state(id) ? 1 : 0;
    return count;
}

bool has_generation(TrayRig& rig, tray::SnapSeq snap_seq) {
    const auto all = rig.tray().generations(main_shard);
    return std::ranges::any_of(all, [&](const auto& g) { return g.id.snap_seq == snap_seq; });
}
bool has_session(TrayRig& rig, uint64_t id) {
    return std::ranges::count(rig.tray().sessions(main_shard), id) != 0;
}
// Block 10 of a generation.
bool holds(TrayRig& rig, tray::ShardId shard, tray::SnapSeq snap_seq, Tag tag) {
    return rig.read(10, {tag}, snap_seq, shard).value_or(0) == tag;
}
bool always(TrayRig& /*rig*/) {
    return true;
}

Task<Status> change_state(tray::Tray& tray) {
    tray::ShardState state = *tray.shard_state(main_shard);
    state.epoch = 4;
    state.blocks += blocks_per_chunk;
    state.writer_token = 9;
    co_return co_await tray.set_shard_state(state);
}

// Of the oldest generation, whose table is not in memory.
Task<Status> read_old(tray::Tray& tray) {
    runtime::Buffer data = co_await runtime::Reactor::current().buffers().allocate(block_bytes);
    uint32_t crc = 0;
    tray::ReadRequest request;
    request.shard = main_shard;
    request.snap_seq = 1;
    request.block = 10;
    request.count = 1;
    request.to = data.bytes();
    request.crcs = {&crc, 1};
    PF_CO_TRY(co_await tray.read(request));
    if (crc != block_crc(a)) co_return fail(Errc::internal, "other bytes");
    co_return Status{};
}

Task<Status> states_of_old(tray::Tray& tray) {
    PF_CO_TRY_ASSIGN(const auto runs, co_await tray.block_states({main_shard, 1}, 0, 20));
    const bool right = runs.size() == 3 && runs[0].count == 10 && runs[1].count == 1 &&
                       runs[1].state == tray::BlockState::data;
    if (!right) co_return fail(Errc::internal, "other blocks are mapped");
    co_return Status{};
}

const std::vector<Operation>& operations() {
    static const std::vector<Operation> all = {
        {"create_shard", [](TrayRig& rig) { return rig.tray().create_shard(state_of(new_shard)); },
         [](TrayRig& rig) { return rig.tray().shard_state(new_shard).has_value(); },
         Errc::already_exists},
        {"create_clone",
         [](TrayRig& rig) { return rig.tray().create_shard(state_of(new_shard), {main_shard, 1}); },
         [](TrayRig& rig) { return holds(rig, new_shard, 1, a); }, Errc::already_exists},
        {"set_shard_state", [](TrayRig& rig) { return change_state(rig.tray()); },
         [](TrayRig& rig) { return rig.tray().shard_state(main_shard)->epoch == 4; }},
        {"delete_shard", [](TrayRig& rig) { return rig.tray().delete_shard(spare_shard); },
         [](TrayRig& rig) { return !rig.tray().shard_state(spare_shard); }, Errc::not_found},
        {"create_shards", [](TrayRig& rig) { return create_many(rig.tray(), first_new_of_many); },
         [](TrayRig& rig) { return count_of_many(rig, first_new_of_many) == many; },
         Errc::already_exists},
        {"delete_shards", [](TrayRig& rig) { return delete_many(rig.tray()); },
         [](TrayRig& rig) {
             return count_of_many(rig, first_of_many) == 0 && !rig.tray().shard_state(spare_shard);
         }},
        {"accept_loss", [](TrayRig& rig) { return rig.tray().accept_loss(damaged_shard); },
         [](TrayRig& rig) {
             return !rig.damaged(damaged_shard) && holds(rig, damaged_shard, 1, a + 500);
         }},
        {"create_generation",
         [](TrayRig& rig) {
             return rig.tray().create_generation({main_shard, 4}, {main_shard, 1}, false);
         },
         [](TrayRig& rig) { return holds(rig, main_shard, 4, a); }, Errc::already_exists},
        {"delete_generation",
         [](TrayRig& rig) { return rig.tray().delete_generation({main_shard, 2}); },
         [](TrayRig& rig) { return !has_generation(rig, 2); }, Errc::not_found},
        {"open_session", [](TrayRig& rig) { return rig.tray().open_session(main_shard, 6); },
         [](TrayRig& rig) { return has_session(rig, 6); }, Errc::already_exists},
        {"close_session",
         [](TrayRig& rig) { return rig.tray().close_session(main_shard, session); },
         [](TrayRig& rig) { return !has_session(rig, session); }, Errc::unknown_session},
        {"void_request",
         [](TrayRig& rig) { return rig.tray().void_request(main_shard, open_request); },
         [](TrayRig& rig) {
             return rig.tray().request_state(main_shard, open_request) ==
                    tray::RequestState::voided;
         }},
        {"checkpoint", [](TrayRig& rig) { return rig.tray().checkpoint(); }, always},
        {"stop", [](TrayRig& rig) { return rig.tray().stop(); }, always},
        {"read_old_generation", [](TrayRig& rig) { return read_old(rig.tray()); }, always, Errc::ok,
         true},
        {"block_states", [](TrayRig& rig) { return states_of_old(rig.tray()); }, always, Errc::ok,
         true},
    };
    return all;
}

// Three generations of the main shard, of which the head has no need of the first; a session with
// an applied and an open request; a shard whose last write was lost with its log block.
Medium make_medium() {
    TrayRig rig;
    EXPECT_TRUE(rig.create());
    EXPECT_TRUE(rig.add_shard(damaged_shard));
    EXPECT_TRUE(rig.add_shard(spare_shard));
    EXPECT_TRUE(rig.run(create_many(rig.tray(), first_of_many)));
    EXPECT_TRUE(rig.run(rig.tray().open_session(main_shard, session)));
    EXPECT_TRUE(rig.write({.block = 10, .tag = a, .request = {session, 1, 1}}));
    for (const tray::SnapSeq made : {2u, 3u}) {
        const tray::GenerationId parent{main_shard, rig.head};
        EXPECT_TRUE(rig.run(rig.tray().create_generation({main_shard, made}, parent, true)));
        rig.head = made;
        EXPECT_TRUE(rig.write({.block = 10, .tag = made == 2 ? b : c}));
    }
    rig.head = 1;
    EXPECT_TRUE(rig.write({.block = 10, .tag = a + 500, .shard = damaged_shard}));
    EXPECT_TRUE(rig.write({.block = 10, .tag = a + 600, .shard = spare_shard}));
    EXPECT_TRUE(rig.run(rig.tray().checkpoint()));
    EXPECT_TRUE(rig.write({.block = 11, .tag = b + 500, .shard = damaged_shard}));
    const uint64_t lost = rig.newest_log_offset();
    EXPECT_TRUE(rig.write({.block = 11, .tag = b + 600, .shard = spare_shard}));
    rig.idle();
    Medium medium = rig.disk.contents();
    medium.flip_bit(lost + 100, 3);
    return medium;
}

// What no operation here may change.
std::string check_rest(TrayRig& rig, const Operation& operation) {
    const std::string name = operation.name;
    if (!holds(rig, main_shard, 1, a)) return "the first generation has changed";
    if (has_generation(rig, 2) && !holds(rig, main_shard, 2, b))
        return "the second one has changed";
    if (!has_generation(rig, 2) && name != "delete_generation") return "the second one is gone";
    if (!holds(rig, main_shard, 3, c)) return "the head has changed";
    if (name != "accept_loss" && !rig.damaged(damaged_shard)) return "a loss was forgotten";
    if (rig.tray().shard_state(spare_shard)) {
        if (!holds(rig, spare_shard, 1, a + 600)) return "the spare shard has changed";
    } else if (!name.starts_with("delete_shard")) {
        return "the spare shard is gone";
    }
    if (name != "delete_shards" && count_of_many(rig, first_of_many) != many)
        return "one of many shards is gone";
    if (has_session(rig, session)) {
        if (rig.tray().request_state(main_shard, {session, 1, 1}) != tray::RequestState::applied)
            return "an applied request was forgotten";
    } else if (name != "close_session") {
        return "the session is gone";
    }
    rig.idle();
    const tray::Usage usage = rig.tray().usage();
    if (usage.free_blocks + usage.user_blocks + usage.metadata_blocks + usage.held_blocks !=
        usage.capacity_blocks)
        return "the space does not add up";
    return {};
}

std::string restart(TrayRig& rig, bool power_loss) {
    rig.crash_to(power_loss ? rig.disk.durable() : rig.disk.contents());
    const Status booted = rig.boot();
    return booted ? std::string() : "mount: " + booted.error().text();
}

std::string run(const Medium& medium, const Operation& operation, uint64_t n, bool power_loss,
                bool& reached) {
    TrayRig rig;
    if (!rig.create()) return "create";
    rig.crash_to(medium);
    if (!rig.boot()) return "boot";
    rig.idle();
    const uint64_t target = rig.node.operations_so_far() + n;
    rig.node.fail_operation(target, EIO);
    const Status result = rig.run(operation.perform(rig));
    reached = rig.node.operations_so_far() >= target;
    if (!result && result.error().code != Errc::io_error)
        return "it ended with " + result.error().text();
    if (!result && !reached) return "it failed without a failure";
    if (!result && !rig.tray().failed() && !operation.only_reads) return "it failed alone";
    std::string wrong = restart(rig, power_loss);
    if (!wrong.empty()) return wrong;
    if (result && !operation.done(rig)) return "what it answered for is not there";
    const Status again = rig.run(operation.perform(rig));
    if (!again && again.error().code != operation.when_repeated)
        return "asked again: " + again.error().text();
    wrong = restart(rig, power_loss);
    if (wrong.empty() && !operation.done(rig)) wrong = "asked again, it is not there";
    return wrong.empty() ? check_rest(rig, operation) : wrong;
}

TEST(TraySweep, every_failing_disk_operation_of_all_but_writes) {
    const Medium medium = make_medium();
    for (const Operation& operation : operations()) {
        for (const bool power_loss : {false, true}) {
            bool reached = true;
            uint64_t n = 1;
            for (; reached && n < 200; ++n) {
                const std::string wrong = run(medium, operation, n, power_loss, reached);
                ASSERT_EQ(wrong, "")
                    << operation.name << ", operation " << n << (power_loss ? ", power loss" : "");
            }
            EXPECT_LT(n, 200u) << operation.name;
            EXPECT_GT(n, 2u) << operation.name << " met no failure";
        }
    }
}

// A mount that fails, one that succeeds on what the device's cache still holds, and a power loss:
// what the second one took from the cache must be durable by then.
TEST(TraySweep, every_failing_disk_operation_of_a_mount_then_a_power_loss) {
    const Operation nothing = {"mount", {}, always};
    const Medium medium = make_medium();
    for (const bool writes : {false, true}) {
        uint64_t n = 1;
        for (bool reached = true; reached && n < 200; ++n) {
            SCOPED_TRACE(fmt::format("operation {}{}", n, writes ? ", writes" : ""));
            TrayRig rig;
            ASSERT_TRUE(rig.create());
            rig.crash_to(medium);
            const uint64_t target = rig.node.operations_so_far() + n;
            rig.node.fail_operation(target, EIO);
            const Status first = rig.boot();
            reached = rig.node.operations_so_far() >= target;
            ASSERT_TRUE(first || reached) << first.error().text();
            const Status second = rig.reboot();
            ASSERT_TRUE(second) << second.error().text();
            rig.head = 3;
            if (writes) {
                ASSERT_TRUE(rig.write({.block = 30, .tag = c + 30}));
            }
            const std::string wrong = restart(rig, true);
            ASSERT_EQ(wrong, "");
            ASSERT_EQ(check_rest(rig, nothing), "");
        }
        EXPECT_GT(n, 10u);
    }
}

}  // namespace
}  // namespace pf::test
