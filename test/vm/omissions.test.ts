/**
 * Goal: whatever the agent fails to enforce, the proof says so, each thing by its own fact. Method: the agent's own
 * sources, changed in the places below so that a clone's environment names what is left out, compiled and booted; the
 * product has no such switch. Left out in turn: everything that a workload can still start without.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { writeCpio } from '../../scripts/setup/cpio.ts';
import { Session } from '../../src/bridge/session.ts';
import { openTemplates } from '../../src/clone/template.ts';
import type { Template } from '../../src/clone/template.ts';
import { digestOf } from '../../src/core/json.ts';
import { openStore } from '../../src/image/store.ts';
import { compareFacts, expectedFacts } from '../../src/profile/facts.ts';
import { generateProfile } from '../../src/profile/generate.ts';
import { inClone, kernelPolicy, newIdentity } from './guest.ts';
import { clock, home, mebibyte, openRig, ramBytes, workloadId } from './rig.ts';
import type { Rig } from './rig.ts';

const OMIT = `
#include <string.h>
bool omit(const char *what) {
    for (char **at = env; *at != NULL; at++) {
        if (strncmp(*at, "OMIT=", 5) == 0 && strcmp(*at + 5, what) == 0) return true;
    }
    return false;
}
`;
const DROP_RULES = `
void drop_rules(void) {
    static struct netlink packet;
    const struct netfilter batch = {0, 0, htons(NFT >> 8)};
    netlink_begin(&packet, BATCH_BEGIN, NLM_F_REQUEST, &batch, sizeof batch);
    netlink_end(&packet);
    netlink_begin(&packet, NFT | 2, NLM_F_REQUEST | NLM_F_ACK, &ipv4, sizeof ipv4);
    netlink_text(&packet, 1, table);
    netlink_end(&packet);
    netlink_begin(&packet, BATCH_END, NLM_F_REQUEST, &batch, sizeof batch);
    netlink_end(&packet);
    int socket = netlink_open(NETLINK_NETFILTER);
    if (socket < 0 || !netlink_request(socket, &packet, 1)) fault(E_CLONE_FAILED, "drop: %s", strerror(errno));
    close(socket);
}
`;

/** File, what stands there, and what takes its place. */
const changes: readonly (readonly [file: string, from: string, to: string])[] = [
  ['agent.h', '#endif\n', 'bool omit(const char *what);\nvoid drop_rules(void);\n#endif\n'],
  ['main.c', 'static struct workload workload;\n', `${OMIT}static struct workload workload;\n`],
  ['main.c', 'load_policy(message_field(message, 14));',
    'if (!omit("policy")) load_policy(message_field(message, 14));'],
  ['main.c', 'limit_cgroup(&resources);', 'limit_cgroup(&resources);\n    if (omit("egress")) drop_rules();'],
  ['main.c', 'resize_scratch(message_u64(message, 6));\n    read_program(message, 10, 11);',
    'read_program(message, 10, 11);\n    if (!omit("scratch")) resize_scratch(message_u64(message, 6));'],
  ['rules.c', '/* ---- proof', `${DROP_RULES}\n/* ---- proof`],
  ['privileges.c', 'if (prctl(PR_SET_NO_NEW_PRIVS', 'if (!omit("nnp") && prctl(PR_SET_NO_NEW_PRIVS'],
  ['privileges.c', 'if (!empty_bounding_set())', 'if (!omit("bounding") && !empty_bounding_set())'],
  ['privileges.c', 'if (syscall(SYS_capset', 'if (!omit("capabilities") && syscall(SYS_capset'],
  ['privileges.c', 'if (setresuid(uid', 'if (!omit("uid") && setresuid(uid'],
  ['privileges.c', 'if (setresuid(0, 0, 0) == 0)',
    'if (!omit("capabilities") && !omit("uid") && setresuid(0, 0, 0) == 0)'],
  ['seccomp.c', 'const struct program_header header = {sizeof',
    'if (omit("nnp")) return NULL;\n    const struct program_header header = {sizeof'],
  ['seccomp.c', 'struct user_regs_struct before, now;',
    'struct user_regs_struct before, now;\n    if (omit("nnp") || omit("filter")) return;'],
  ['workload.c', 'if (write(POLICY_FD', 'if (!omit("label") && write(POLICY_FD'],
  ['workload.c', 'if (!write_text(group, "0"))', 'if (!omit("member") && !write_text(group, "0"))'],
  ['workload.c', 'if (!set_limit(0, RLIMIT_CORE, 0) || !set_limit(0, RLIMIT_NOFILE, program->open_files))',
    'if (!omit("rlimits") && (!set_limit(0, RLIMIT_CORE, 0) || !set_limit(0, RLIMIT_NOFILE, program->open_files)))'],
  ['workload.c', '#include <sys/prctl.h>', '#include <sys/mount.h>\n#include <sys/prctl.h>'],
  ['workload.c', 'if (chdir("/function") != 0)', `if (omit("read-only")) {
        mount(NULL, "/function", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV, NULL);
    }
    if (omit("hidden")) umount2("/proc/kcore", 0);
    if (chdir("/function") != 0)`],
  ['cgroup.c', 'set("memory.max", text);',
    'if (!omit("memory")) set("memory.max", text);\n    if (omit("swap")) set("memory.swap.max", "max");'],
  ['cgroup.c', 'set("pids.max", text);', 'if (!omit("pids")) set("pids.max", text);'],
  ['cgroup.c', 'set("cpu.max", text);', 'if (!omit("cpu")) set("cpu.max", text);'],
];

/** What is left out, and the facts that then differ. */
const omissions: Readonly<Record<string, readonly string[]>> = {
  nothing: [],
  uid: ['uid'],
  nnp: ['no_new_privs', 'seccomp', 'seccomp.filters', 'seccomp.digest'],
  filter: ['seccomp.filters', 'seccomp.digest'],
  bounding: ['cap.bounding'],
  capabilities: ['cap.permitted', 'cap.effective'],
  label: ['apparmor.label'],
  policy: ['apparmor.policy'],
  memory: ['cgroup.memory.max'],
  swap: ['cgroup.memory.swap.max'],
  pids: ['cgroup.pids.max'],
  cpu: ['cgroup.cpu.max'],
  member: ['cgroup.member'],
  rlimits: ['rlimit.nofile', 'rlimit.core'],
  'read-only': ['mount./function'],
  hidden: ['mount./proc/kcore'],
  scratch: ['scratch.bytes'],
  egress: ['net.rule.mayfly.ask', 'net.rule.mayfly.refuse', 'net.rule.mayfly.catch'],
};

const folder = mkdtempSync(join(tmpdir(), 'mayfly-omissions-'));
after(() => rmSync(folder, { recursive: true }));

async function buildInitramfs(): Promise<{ readonly path: string; readonly digest: string }> {
  const sources = join(folder, 'agent');
  cpSync(join(import.meta.dirname, '../../guest/agent'), sources, { recursive: true });
  for (const [name, from, to] of changes) {
    const path = join(sources, name);
    const text = readFileSync(path, 'utf8');
    assert.ok(text.includes(from), `${name} has no place for ${to}`);
    // The last one: `#endif` closes a header.
    const at = text.lastIndexOf(from);
    writeFileSync(path, text.slice(0, at) + to + text.slice(at + from.length));
  }
  const files = readdirSync(sources).filter((name) => name.endsWith('.c'));
  const program = join(folder, 'init');
  const build = promisify(execFile);
  await build('musl-gcc', ['-std=c11', '-Os', '-static', '-s', '-o', program, ...files], { cwd: sources });
  const modules = await openStore(home).find('modules');
  assert.ok(modules !== undefined);
  const folders = ['dev', 'image', 'overlay', 'proc', 'sys'].map((path) => ({ kind: 'folder', path }) as const);
  const init = { kind: 'file', path: 'init', mode: 0o555, content: readFileSync(program) } as const;
  const content = Buffer.concat([writeCpio([...folders, init]), readFileSync(modules.path)]);
  const path = join(folder, 'initramfs');
  writeFileSync(path, content, { mode: 0o644 });
  return { path, digest: digestOf(content) };
}

let rig: Rig;
let template: Template;
before(async () => {
  rig = await openRig();
  const initramfs = await buildInitramfs();
  const templates = openTemplates({
    home: folder, kernel: rig.repository.kernel, initramfs, vmm: rig.vmm, clock, compile: rig.compile, workloadId,
    builder: `${process.pid}-0`, alive: async () => true,
  });
  template = await templates.get(await rig.repository.images.get('shell'), ramBytes);
});

const image = { name: 'shell', digest: `sha256:${'0'.repeat(64)}` };
const limits = { scratchBytes: 16 * mebibyte, openFiles: 99, cpuQuotaMicros: 50_000 };
const { profile } = generateProfile({ request: { image, limits, minimumIsolation: 'tcg' }, codeBytes: 0 });

for (const [what, facts] of Object.entries(omissions)) {
  test(`left out: ${what}: ${facts.length === 0 ? 'no difference' : facts.join(', ')}`, async () => {
    const { policy, filter } = await kernelPolicy(template, profile);
    const reported = await inClone(rig, template, async ({ bridge }) => {
      const session = new Session({ transport: bridge, clock });
      await session.adopt(newIdentity());
      const program = { argv: ['/usr/bin/true'], env: [`OMIT=${what}`] };
      const ids = { uid: workloadId, gid: workloadId };
      return await session.configure({ limits: profile.limits, ...program, ...ids, policy, filter }, []);
    });
    const found = compareFacts(expectedFacts(profile, policy), reported);
    assert.deepEqual(found.map((line) => line.slice(0, line.indexOf(':'))).sort(), [...facts].sort(), found.join('\n'));
  });
}
