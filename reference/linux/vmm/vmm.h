/* SPDX-License-Identifier: GPL-2.0-only */
/* What the parts of the VMM share. */
#ifndef VMM_H
#define VMM_H

#include <linux/kvm.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

#define CAP_FORCE_SPEC_CTRL	252	/* the scenarios' 236, which this kernel has given away */
#define GET_SUPPORTED		_IOR(KVMIO, 0xe4, __u64)

#define MSR_SPEC_CTRL		0x48
#define MSR_ARCH_CAPABILITIES	0x10a
#define MODELLED		(1ull << 63 | 1ull << 20 | 1ull << 19)
#define MSR_MITIGATION_CTRL	0x50000002
#define MSR_TEST_EFFECTIVE	0x500000f0	/* the test-only patch's window */
#define MSR_TEST_SAVED		0x500000f1
#define MSR_TEST_PLACE		0x500000f2
#define MSR_TEST_MASK		0x500000f3
#define MSR_TEST_SHADOW		0x500000f4
#define MSR_TEST_HELD		0x500000f5

enum { NOP, RDMSR, WRMSR, VMENTER, VMCALL, VMXOFF, RSM };
enum { PORT_L1 = 0x10, PORT_L2 = 0x12, PORT_SMM = 0x14, PORT_RESET = 0x16 };

struct command {
	u32 op, msr;
	u64 value;		/* 8 */
	u32 fault, status;	/* 16, 20 */
	u32 port, launched;	/* 24, 28 */
	u64 table, count;	/* 32, 40: VMWRITEs */
	u64 vmxon, vmcs;	/* 48, 56: addresses of their addresses; 0 if not needed */
	u64 reason, qualification;	/* 64, 72 */
};

extern const u8 guest_code[], guest_end[], guest_exit[], guest_gp[], smm_code[], smm_gp[], smm_end[], reset_code[];

/* A vCPU's block of guest memory. */
#define BLOCK		0x80000
#define BLOCKS		8
#define PML4		0x0000
#define PDPT		0x1000
#define PD		0x2000
#define GDT		0x3000
#define TSS		0x3800
#define IDT		0x4000
#define COMMANDS	0x5000	/* L1, L2, SMM; 0x100 apart */
#define TABLE		0x5800
#define CODE		0x6000
#define STACK_L1	0xb000
#define STACK_L2	0xd000
#define STACK_SMM	0xf000
#define IVT_SMM		0x10000
#define VMXON		0x11000
#define VMCS12		0x12000
#define BITMAP		0x13000
#define ENTRY_LOAD	0x14000
#define EXIT_STORE	0x15000
#define EXIT_LOAD	0x16000
#define SMBASE		0x20000
#define MEMORY		(BLOCK * BLOCKS)
#define RESET_PAGE	0xfffff000u

#define MAX_VCPUS 8
#define MAX_LIST 16
struct list { u32 count; u32 msr[MAX_LIST]; u64 value[MAX_LIST]; };

struct vcpu {
	u32 id;
	int fd;
	u32 block;		/* of guest memory; with another vCPU's nested state comes its block */
	u32 home;		/* its own, where SMM is */
	struct kvm_run *run;
	u32 port;		/* of the last OUT: the level that waits */
	bool vmx, launched, ran, msr_pending, shut_down;
	u64 own_mask, own_value;
	bool own_pair;
	char features[256];
	struct list loads, stores;	/* L1's VM-exit lists */
};

struct vm {
	int fd;
	u8 *memory, *reset;
	u32 nr;
	struct vcpu vcpus[MAX_VCPUS];
	bool moved;		/* the memory is that of the VM that it was */
	u64 mask, value, reasons;
	struct kvm_msr_filter filter;
	u8 bitmaps[16][0x600];
};

/* Where a vCPU is: everything that moves but MSRs, KVM's state and the VMM's. */
struct place {
	struct kvm_nested_state *state;
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	struct kvm_vcpu_events events;
	u32 port, block, home;
	bool vmx, launched;
	struct list stores, loads;
};

/* words.c */
extern jmp_buf give_up;
extern char why[256];

/* machine.c */
extern int kvm, msr_dev;
extern struct vm vm;
extern bool nested;
extern char host_features[256];
extern char parameters[512];		/* of kvm_intel */
extern char destination[512];		/* of the next move */
extern char posted[32];			/* operations as posted */

/* ioctls.c */
extern struct saved { char name[64]; bool used; struct place place; } states[8];

/* words.c */
void say(const char *format, ...);
void unsupported(const char *format, ...) __attribute__((noreturn));
const char *word(const char *line, const char *key);
bool has_word(const char *line, const char *key);
u64 number(const char *line, const char *key);
bool in_list(const char *list, const char *name);
struct list msr_list(const char *text);
void answer_ret(int ret);

/* guest.c */
struct command *command(struct vcpu *v, u32 port);
int set_msr(struct vcpu *v, u32 msr, u64 value);
int get_msr(struct vcpu *v, u32 msr, u64 *value);
void set_registers(struct vcpu *v);
void put64(u32 at, u64 value);
void lay_out(struct vcpu *v);
struct kvm_cpuid2 *guest_cpuid(const char *features);

/* running.c */
int run(struct vcpu *v);
void settle(struct vcpu *v);
int perform(struct vcpu *v, u32 op, u32 msr, u64 value);
struct vcpu *the_vcpu(const char *line);
void say_access(struct vcpu *v, int ended, u32 port, bool read);
void init(const char *line);
void vmxoff(const char *line);
void smi(const char *line);
void rsm(const char *line);

/* nested.c */
void nested_enter(const char *line, const char *rest);
void nested_exit(const char *line);

/* ioctls.c */
void close_fds(void);
void close_vm(void);
void open_vm(u8 *memory, u8 *reset);
int create_vcpu(u32 id, const char *features);
void do_enable_cap(const char *line);
void index_list(u32 request);
void get_msrs(int fd, const char *line);
int set_msrs(struct vcpu *v, const struct list *list);
int set_filter(const char *line);
struct place *the_state(const char *name, bool make);
int save_place(struct vcpu *v, struct place *p);
void restore_events(struct vcpu *v, const struct place *p);
int restore_place(struct vcpu *v, struct place *p, int run_pending);

/* move.c */
void migrate(const char *line);

/* steps.c */
void perform_step(const char *line, const char *rest);

/* machine.c */
u64 rdmsr_host(u32 msr);
void wrmsr_host(u32 msr, u64 value);
void set_parameter(const char *name, const char *value);
void reload(const char *wanted);

#endif
