/*
 * A breadth-first search over kernels; what stands above this line in the program was made from the rule code.
 *
 * Standard input: the constants, the hosts, the first states, the events, and how deep to go; all numbers.
 * Standard output, one line for each: "level", after each depth; "violated", with the events of a shortest history;
 * "crash", likewise; "node", on demand; "found" at the end; "failed", with the reason.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#ifdef __linux__
#include <signal.h>
#include <sys/prctl.h>
#endif

enum { MIGRATION = 1, RESET = 2 };

struct event { unsigned kind, flags, violates; word v0, v1; unsigned to; };
struct move { uint32_t then; uint16_t ends; word x0, x1; };

static struct host hosts[MAX_HOSTS];
static struct event *events;
static unsigned nhosts, nevents;
static uint64_t transitions;

static uint32_t first_violation[PROPERTIES];
static uint16_t last_event[PROPERTIES];
static char is_violated[PROPERTIES];

static void fail(const char *why)
{
	printf("failed %s\n", why);
	exit(0);
}

static void *grown(void *old, size_t count, size_t size)
{
	void *made = realloc(old, count * size);
	if (!made)
		fail("memory");
	return made;
}

/* A hash: parts of eight bytes, each times a number of its own, so that no product waits for another. */
static inline uint64_t mixed(const void *from, size_t size)
{
	uint64_t hash = 0, factor = 0x9e3779b97f4a7c15u, part;
	const char *at = from;
#pragma GCC unroll 16
	for (size_t place = 0; place + 8 <= size; place += 8) {
		memcpy(&part, at + place, 8);
		hash += (part ^ part >> 32) * factor;
		factor += 0xbf58476d1ce4e5b8u;
	}
	part = 0;
	memcpy(&part, at + size / 8 * 8, size % 8);
	hash += (part ^ part >> 32) * factor;
	hash = (hash ^ hash >> 32) * 0xff51afd7ed558ccdu;
	return hash ^ hash >> 32;
}

static inline int same(const void *one, const void *other, size_t size)
{
	uint64_t differs = 0, a, b;
	const char *at = one, *beside = other;
#pragma GCC unroll 16
	for (size_t place = 0; place + 8 <= size; place += 8) {
		memcpy(&a, at + place, 8);
		memcpy(&b, beside + place, 8);
		differs |= a ^ b;
	}
	a = b = 0;
	memcpy(&a, at + size / 8 * 8, size % 8);
	memcpy(&b, beside + size / 8 * 8, size % 8);
	return !(differs | (a ^ b));
}

/* A set of records of one size, each with a number. */
struct set { char *items; uint32_t *slots; uint32_t count, room, mask; size_t size; };

static void make_room(struct set *set)
{
	set->room = set->room ? set->room * 2 : 1 << 12;
	set->mask = set->room * 2 - 1;
	set->items = grown(set->items, set->room, set->size);
	free(set->slots);
	set->slots = grown(NULL, (size_t)set->mask + 1, sizeof *set->slots);
	memset(set->slots, 0xff, ((size_t)set->mask + 1) * sizeof *set->slots);
	for (uint32_t number = 0; number < set->count; number++) {
		uint32_t slot = mixed(set->items + number * set->size, set->size) & set->mask;
		while (set->slots[slot] != UINT32_MAX)
			slot = (slot + 1) & set->mask;
		set->slots[slot] = number;
	}
}

/* The number of an item of this size and hash; *is_new says whether it came in now.  Inlined, so that the size is known. */
static inline uint32_t number_of(struct set *set, const void *item, size_t size, uint64_t hash, int *is_new)
{
	if (set->count == set->room)
		make_room(set);
	uint32_t slot = hash & set->mask;
	for (; set->slots[slot] != UINT32_MAX; slot = (slot + 1) & set->mask)
		if (same(set->items + set->slots[slot] * size, item, size)) {
			*is_new = 0;
			return set->slots[slot];
		}
	*is_new = 1;
	memcpy(set->items + set->count * size, item, size);
	set->slots[slot] = set->count;
	return set->count++;
}

/* Have memory brought near that number_of will look at: of a hash its slot; of a slot that was brought, the item. */
static inline void fetch_slot(const struct set *set, uint64_t hash)
{
	__builtin_prefetch(set->slots + (hash & set->mask));
}

static inline void fetch_item(const struct set *set, uint64_t hash)
{
	uint32_t number = set->slots[hash & set->mask];
	if (number != UINT32_MAX)
		__builtin_prefetch(set->items + number * set->size);
}

static struct set contracts = { .size = sizeof(struct contract) };
static struct set nodes = { .size = sizeof(struct node) };
static uint32_t *parents;
static uint16_t *steps;
static size_t parents_room;
static struct move **rows;
static size_t rows_room;

static uint32_t contract_number(const struct contract *contract)
{
	int is_new;
	return number_of(&contracts, contract, sizeof *contract, mixed(contract, sizeof *contract), &is_new);
}

static void print_history(uint32_t number)
{
	static uint16_t history[1 << 16];
	unsigned length = 0;
	while (parents[number] != UINT32_MAX) {
		history[length++] = steps[number];
		number = parents[number];
	}
	printf(" %u", ((struct node *)nodes.items)[number].host);
	while (length--)
		printf(" %u", history[length]);
}

static void violated(unsigned property, uint32_t before, unsigned event)
{
	if (is_violated[property])
		return;
	is_violated[property] = 1;
	first_violation[property] = before;
	last_event[property] = event;
}

static void make_rows(void)
{
	size_t before = rows_room;
	if (contracts.room == before)
		return;
	rows_room = contracts.room;
	rows = grown(rows, rows_room, sizeof *rows);
	memset(rows + before, 0, (rows_room - before) * sizeof *rows);
}

/* What the contract says of every event in one of its states: worked out once. */
static struct move *moves_from(uint32_t number)
{
	make_rows();
	if (rows[number])
		return rows[number];
	struct contract at = ((struct contract *)contracts.items)[number];
	struct move *row = grown(NULL, nevents, sizeof *row);
	memset(row, 0, nevents * sizeof *row);
	for (unsigned index = 0; index < nevents; index++) {
		struct event *event = events + index;
		struct contract then = at;
		struct move *move = row + index;
		if (event->flags & MIGRATION && event->to == at.host) {
			move->ends = IMPOSSIBLE;
			continue;
		}
		move->ends = of_contract(event->kind, &at, &then, hosts + at.host, hosts + event->to, event->v0, event->v1,
					 &move->x0, &move->x1);
		if (move->ends == IMPOSSIBLE)
			continue;
		if (event->flags & MIGRATION && move->ends == NOTHING)
			then.host = event->to;
		move->then = contract_number(&then);
	}
	make_rows();
	return rows[number] = row;
}

static int add(const struct node *node, uint64_t hash, uint32_t parent, unsigned event)
{
	int is_new;
	uint32_t number = number_of(&nodes, node, sizeof *node, hash, &is_new);
	if (!is_new)
		return 0;
	if (nodes.room > parents_room) {
		parents_room = nodes.room;
		parents = grown(parents, parents_room, sizeof *parents);
		steps = grown(steps, parents_room, sizeof *steps);
	}
	parents[number] = parent;
	steps[number] = event;
	return 1;
}

static unsigned looked_at(const struct node *node)
{
	return looks(node, (struct contract *)contracts.items + node->at, hosts + node->host);
}

/* What one event did, until it is judged. */
struct reached { uint64_t hash; unsigned index, ends, noted, differs; struct node node; };
static struct reached *reached;

enum { AHEAD = 6 };

/* What every event does in a state.  All are worked out before the first is looked up, so that memory comes in time. */
static unsigned reach(const struct node *from)
{
	const struct move *row = moves_from(from->at);
	unsigned count = 0;
	for (unsigned index = 0; index < nevents; index++) {
		const struct event *event = events + index;
		const struct move *move = row + index;
		struct reached *to = reached + count;
		word x0, x1;
		if (move->ends == IMPOSSIBLE)
			continue;
		count++;
		to->index = index;
		to->noted = 0;
		to->node = *from;
		to->ends = of_vcpu(event->kind, from, &to->node, hosts + from->host, hosts + event->to,
				   event->v0, event->v1, &x0, &x1, &to->noted);
		to->differs = to->ends != move->ends || x0 != move->x0 || x1 != move->x1;
		to->node.at = move->then;
		if (event->flags & MIGRATION && to->ends == NOTHING)
			to->node.host = event->to;
		to->hash = mixed(&to->node, sizeof to->node);
		fetch_slot(&nodes, to->hash);
	}
	return count;
}

static void expand(uint32_t number)
{
	const struct node from = ((struct node *)nodes.items)[number];
	unsigned count = reach(&from);
	for (unsigned place = 0; place < count; place++) {
		const struct reached *to = reached + place;
		const struct event *event = events + to->index;
		unsigned broken;
		if (place + AHEAD < count)
			fetch_item(&nodes, to[AHEAD].hash);
		transitions++;
		if (to->ends == HOST_FAULT) {
			violated(HOST_NEVER_FAULTS, number, to->index);
			continue;
		}
		if (to->ends == CRASH) {
			printf("crash");
			print_history(number);
			printf(" %u\n", to->index);
			exit(0);
		}
		for (unsigned property = 0; to->noted >> property; property++)
			if (to->noted >> property & 1)
				violated(property, number, to->index);
		if (to->differs) {
			violated(event->violates, number, to->index);
			if (event->violates != GUEST_READS)
				continue;
		}
		if (add(&to->node, to->hash, number, to->index)) {
			broken = looked_at(&to->node);
			for (unsigned property = 0; property < PROPERTIES; property++)
				if (broken >> property & 1)
					violated(property, number, to->index);
		}
		if (to->ends == NOTHING && event->flags) {
			broken = looked_at(&to->node);
			if (event->flags & RESET ? broken & BROKEN_BY_RESET : broken & BROKEN_BY_MOVE)
				violated(event->flags & RESET ? RESET_LEAVES : MIGRATION_IS, number, to->index);
		}
	}
}

static uint64_t number(void)
{
	uint64_t found;
	if (scanf("%" SCNu64, &found) != 1)
		fail("input");
	return found;
}

static void words(word *into, unsigned count)
{
	while (count--)
		*into++ = number();
}

int main(void)
{
#ifdef __linux__
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* whoever asked for this is gone: nobody will read it */
#endif
	struct rlimit memory;
	memory.rlim_cur = memory.rlim_max = number();
	if (memory.rlim_cur)
		setrlimit(RLIMIT_AS, &memory);
	words(CONSTANTS, sizeof CONSTANTS / sizeof *CONSTANTS);
	nhosts = number();
	if (nhosts > MAX_HOSTS)
		fail("hosts");
	for (unsigned index = 0; index < nhosts; index++) {
		words(hosts[index].w, HOST_WORDS);
		hosts[index].f = number();
		hosts[index].control = number();
	}
	nevents = number();
	events = grown(NULL, nevents, sizeof *events);
	reached = grown(NULL, nevents, sizeof *reached);
	for (unsigned index = 0; index < nevents; index++) {
		struct event *event = events + index;
		event->kind = number();
		event->flags = number();
		event->violates = number();
		event->v0 = number();
		event->v1 = number();
		event->to = number();
	}
	uint64_t max_depth = number(), dump = number(), depth = 0;
	for (unsigned index = 0; index < nhosts; index++) {
		struct contract at;
		struct node node;
		memset(&at, 0, sizeof at);
		memset(&node, 0, sizeof node);
		at.host = node.host = index;
		words(at.w, CONTRACT_WORDS);
		at.f = number();
		words(node.w, WORDS);
		node.f = number();
		node.at = contract_number(&at);
		add(&node, mixed(&node, sizeof node), UINT32_MAX, 0);
	}
	uint32_t from = 0, to = nodes.count;
	while (from < to && depth != max_depth) {
		for (uint32_t index = from; index < to; index++)
			expand(index);
		from = to;
		to = nodes.count;
		depth += from < to;
		printf("level %u %" PRIu64 "\n", nodes.count, transitions);
		fflush(stdout);
	}
	for (unsigned property = 0; property < PROPERTIES; property++)
		if (is_violated[property]) {
			printf("violated %u", property);
			print_history(first_violation[property]);
			printf(" %u\n", last_event[property]);
		}
	for (uint32_t index = 0; dump && index < nodes.count; index++) {
		const struct node *node = (struct node *)nodes.items + index;
		const struct contract *at = (struct contract *)contracts.items + node->at;
		printf("node %u %u %" PRId64 " %u", node->host, at->host, parents[index] == UINT32_MAX ? -1 : (int64_t)parents[index],
		       steps[index]);
		for (unsigned place = 0; place < CONTRACT_WORDS; place++)
			printf(" %u", (unsigned)at->w[place]);
		printf(" %u", at->f);
		for (unsigned place = 0; place < WORDS; place++)
			printf(" %u", (unsigned)node->w[place]);
		printf(" %u\n", node->f);
	}
	printf("found %u %" PRIu64 " %" PRIu64 " %u %zu\n", nodes.count, transitions, depth, contracts.count,
	       nodes.room * (sizeof(struct node) + 14) + contracts.count * (sizeof(struct contract) + nevents * sizeof(struct move)));
	return 0;
}
