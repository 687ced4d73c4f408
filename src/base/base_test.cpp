// Goal: the small tools that everything stands on do what their headers say. Method: known values,
// and properties over random input.
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "base/crc32c.hpp"
#include "base/list.hpp"
#include "base/rng.hpp"
#include "base/units.hpp"
#include "base/uuid.hpp"

namespace pf {
namespace {

TEST(Crc32c, KnownValues) {
    EXPECT_EQ(crc32c(as_bytes("123456789")), 0xe3069283u);
    EXPECT_EQ(crc32c({}), 0u);
    const std::array<std::byte, 32> zeros{};
    EXPECT_EQ(crc32c(zeros), 0x8a9136aau);
}

TEST(Crc32c, ChainsAndCopies) {
    Rng rng(1);
    std::vector<std::byte> from(20000), to(20000);
    for (auto& byte : from) byte = static_cast<std::byte>(rng.next());
    const Bytes all(from);
    for (int i = 0; i < 100; ++i) {
        const size_t cut = rng.below(all.size());
        EXPECT_EQ(crc32c(all.subspan(cut), crc32c(all.first(cut))), crc32c(all));
    }
    EXPECT_EQ(copy_crc32c(to, from), crc32c(all));
    EXPECT_EQ(from, to);
}

TEST(Size, ParsesWhatPeopleType) {
    EXPECT_EQ(*parse_size("4096"), 4096u);
    EXPECT_EQ(*parse_size("64k"), 65536u);
    EXPECT_EQ(*parse_size("10G"), uint64_t{10} << 30);
    EXPECT_EQ(*parse_size("10GiB"), uint64_t{10} << 30);
    EXPECT_EQ(*parse_size("1.5K"), 1536u);
    EXPECT_EQ(*parse_size("1P"), max_volume_bytes);
}

TEST(Size, RefusesTheRest) {
    for (const char* bad : {"", "-1", "G", "10X", "1e9", "99999999999999999999", "17179869184G",
                            "1..5G", "0.3", "10 G"}) {
        EXPECT_FALSE(parse_size(bad).has_value()) << bad;
    }
}

TEST(Size, ExactFiguresDoNotContradictThemselves) {
    const uint64_t least = uint64_t{388} * block_bytes;
    EXPECT_EQ(format_size(least), format_size(least - block_bytes));  // why there are two
    EXPECT_EQ(format_exact_size(least), "1552 KiB");
    EXPECT_EQ(format_exact_size(least - block_bytes), "1548 KiB");
    EXPECT_EQ(format_exact_size(least - 1), "1589247 B");
    EXPECT_EQ(format_exact_size(0), "0 B");
    EXPECT_EQ(format_exact_size(uint64_t{3} << 50), "3 PiB");
}

TEST(Volume, NamesAndSizes) {
    EXPECT_TRUE(check_volume_name("vm-1.disk_0"));
    EXPECT_TRUE(check_volume_name(std::string(96, 'a')));
    for (const std::string& bad :
         {std::string(), std::string(97, 'a'), std::string("a/b"), std::string("a@b"),
          std::string("a:b"), std::string("a\nb"), std::string(1, '\0')}) {
        EXPECT_FALSE(check_volume_name(bad));
    }
    for (const char* good :
         {"gr\u00fc\u00df", "\u00a0", "\u30dc\u30ea", "\U0001f4be", "\xf4\x8f\xbf\xbf"})
        EXPECT_TRUE(check_volume_name(good)) << good;
    for (const char* bad :
         {"\xff", "a\xc3", "\x80", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
          "\xf8\x88\x80\x80\x80", "\xc3(", "a\xc2\x80", "\xc2\x9f"}) {
        const Status refused = check_volume_name(bad);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().message.find(bad), std::string::npos);
    }
    EXPECT_TRUE(check_volume_size(4096));
    EXPECT_TRUE(check_volume_size(max_volume_bytes));
    EXPECT_FALSE(check_volume_size(0));
    EXPECT_FALSE(check_volume_size(4097));
    EXPECT_FALSE(check_volume_size(max_volume_bytes + 4096));
}

TEST(Uuid, RoundTrips) {
    Rng rng(7);
    const uint64_t high = rng.next();
    const Uuid uuid = Uuid::from_random(high, rng.next());
    EXPECT_EQ(*Uuid::parse(uuid.text()), uuid);
    EXPECT_FALSE(Uuid::parse("1234"));
    EXPECT_FALSE(Uuid::parse(uuid.text() + "0"));
}

TEST(List, KeepsOrderAndUnlinks) {
    struct Item : ListHook {
        int value = 0;
    };
    std::array<Item, 3> items;
    List<Item> list;
    for (int i = 0; i < 3; ++i) {
        items[static_cast<size_t>(i)].value = i;
        list.push_back(items[static_cast<size_t>(i)]);
    }
    items[1].unlink();
    EXPECT_EQ(list.pop_front()->value, 0);
    EXPECT_EQ(list.pop_front()->value, 2);
    EXPECT_TRUE(list.empty());
}

}  // namespace
}  // namespace pf
