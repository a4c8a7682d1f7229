/**
 * The seams of the architecture, enforced (docs/ARCHITECTURE.md). Stages know `core` and each other's types; only the
 * pipeline and the composition root know all of them; what is behind a contract is reached through the contract.
 * dependency-cruiser reads TypeScript with swc here, because TypeScript 7 has no compiler API for it.
 */
const stages = 'event|profile|image|clone|bridge|validate|release|evidence|journal';

export default {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true, dependencyTypesNot: ['type-only'] } },
    {
      name: 'core-stands-alone',
      severity: 'error',
      comment: 'core is what everything is built on.',
      from: { path: '^src/core/' },
      to: { path: '^src/', pathNot: '^src/core/' },
    },
    {
      name: 'vmm-behind-its-contract',
      severity: 'error',
      comment: 'QEMU and the fake are chosen in the composition root; everyone else knows contract.ts.',
      from: { path: '^src/', pathNot: '^src/(clone/vmm/|clone/(template|probe)\\.ts|app\\.ts|main\\.ts)' },
      to: { path: '^src/clone/vmm/', pathNot: '^src/clone/vmm/contract\\.ts$' },
    },
    {
      name: 'fake-is-for-tests',
      severity: 'error',
      from: { path: '^src/' , pathNot: '^src/clone/vmm/fake' },
      to: { path: '^src/clone/vmm/fake' },
    },
    {
      name: 'pure-codec',
      severity: 'error',
      comment: 'The codec of the bridge is parsed against hostile bytes: no I/O in reach.',
      from: { path: '^src/bridge/(frame|message|streams)\\.ts$' },
      to: { path: '^(node:)?(net|fs|fs/promises|child_process|stream|http|tls)$' },
    },
    {
      name: 'pure-run',
      severity: 'error',
      comment: 'run.ts decides; it cannot do.',
      from: { path: '^src/run\\.ts$' },
      to: { path: '^(node:)?[a-z]', pathNot: '^src/', dependencyTypes: ['core'] },
    },
    {
      name: 'stages-do-not-know-the-story',
      severity: 'error',
      from: { path: `^src/(${stages})/` },
      to: { path: '^src/(pipeline|journey|run|stages|app|main|cli)' },
    },
    {
      name: 'cli-holds-no-logic',
      severity: 'error',
      comment: 'The command line talks to app.ts and knows types; function packaging and set-up checks are its own.',
      from: { path: '^src/cli/' },
      to: {
        path: `^src/(${stages})/`,
        pathNot: '^src/event/code\\.ts$|^src/evidence/',
        dependencyTypesNot: ['type-only'],
      },
    },
    { name: 'no-test-in-product', severity: 'error', from: { path: '^src/' }, to: { path: '^(test|scripts)/' } },
    { name: 'resolvable', severity: 'error', from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    parser: 'swc',
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { extensions: ['.ts', '.js', '.mjs'], conditionNames: ['import', 'node', 'default'] },
  },
};
