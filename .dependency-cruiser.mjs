/**
 * The seams of the architecture, enforced (docs/ARCHITECTURE.md). Stages know `core` and each other's types; only the
 * pipeline and the composition root know all of them; what is behind a contract is reached through the contract.
 *
 * Several rules hang on whether an import is `import type`. dependency-cruiser learns that from TypeScript's compiler
 * API only: its swc parser calls every import a value. TypeScript 7 has no such API, hence the package `typescript` is
 * 6 and what checks types is `typescript-native`. test/unit/seams.test.ts plants a violation of every rule.
 */
const stages = 'egress|event|profile|rules|image|clone|bridge|validate|release|evidence|forensics|journal|intel';
const doors =
  '^src/(bridge/session|clone/clone|egress/parse|journal/journal|'
  + 'profile/(apparmor|facts|kernel|levels|network|order))\\.ts$';

export default {
  forbidden: [
    {
      name: 'no-cycles',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'core-stands-alone',
      severity: 'error',
      comment: 'core is what everything is built on.',
      from: { path: '^src/core/' },
      to: { path: '^(src|node_modules)/', pathNot: '^src/core/' },
    },
    {
      name: 'vmm-behind-its-contract',
      severity: 'error',
      comment: 'QEMU and the fake are chosen in the composition root; everyone else knows contract.ts.',
      from: {
        path: '^src/',
        pathNot: '^src/(clone/vmm/|clone/(template|probe)\\.ts|(app|load-engine)\\.ts|main\\.ts)',
      },
      to: { path: '^src/clone/vmm/', pathNot: '^src/clone/vmm/contract\\.ts$' },
    },
    {
      name: 'egress-behind-its-contract',
      severity: 'error',
      comment: 'The bridge and the story know contract.ts; the composition root makes brokers and reads policies.',
      from: {
        path: '^src/',
        pathNot: '^src/(egress/|rules/destinations\\.ts|function/manifest\\.ts|app\\.ts|compose\\.ts|cli/network\\.ts)',
      },
      to: { path: '^src/egress/', pathNot: '^src/egress/(contract|report)\\.ts$' },
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
      name: 'pure-intel',
      severity: 'error',
      comment: 'Feeds and events are hostile: what parses, matches and scores them has no I/O in reach.',
      from: {
        path:
          '^src/intel/(archive|assess|blocklist|deny|index|indicator|minisign|'
          + 'misp|record|schedule|stix|stix-pattern|text|threat|vet)\\.ts$',
      },
      to: {
        path:
          '^(node:)?(net|fs|fs/promises|child_process|http|tls)$|^src/intel/(fetch|pull|store|sync|yara|intel)\\.ts$',
        dependencyTypesNot: ['type-only'],
      },
    },
    {
      name: 'pure-run',
      severity: 'error',
      comment: 'run.ts decides; it cannot do. It knows core, the making of a verdict, and otherwise types.',
      from: { path: '^src/run\\.ts$' },
      to: { pathNot: '^src/core/|^src/validate/verdict\\.ts$', dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'stages-do-not-know-the-story',
      severity: 'error',
      from: { path: `^src/(${stages})/` },
      to: { path: '^src/(pipeline|journey|run|stages|app|main|cli|serve|function|tenant|client)' },
    },
    {
      name: 'stages-meet-at-doors',
      severity: 'error',
      comment: 'A stage knows types of the others and calls them only through the modules that are meant for it.',
      from: { path: `^src/(${stages})/`, pathNot: '^src/clone/vmm/fake\\.ts$' },
      to: { path: `^src/(${stages})/`, pathNot: `^src/$1/|${doors}`, dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'cli-holds-no-logic',
      severity: 'error',
      comment: 'The command line talks to app.ts; it packs a function, reads its environment, rules and a verdict.',
      from: { path: '^src/cli/' },
      to: {
        path: `^src/(${stages})/`,
        pathNot: '^src/(event/(code|environment)|egress/(parse|explain)|validate/verdict)\\.ts$|^src/evidence/|'
          + '^src/image/manifest\\.ts$|'
          + '^src/profile/(levels|order)\\.ts$|^src/rules/(files|load|suite)\\.ts$',
        dependencyTypesNot: ['type-only'],
      },
    },
    {
      name: 'service-runs-events-through-its-contract',
      severity: 'error',
      comment: 'The service knows what it needs of a runner, functions and tenants; runner.ts alone knows the App.',
      from: { path: '^src/(serve|tenant|function)/', pathNot: '^src/serve/runner\\.ts$' },
      to: {
        path: '^src/(pipeline|journey|run|stages|compose|app|main|cli|clone|bridge|image|release|evidence|journal)',
        dependencyTypesNot: ['type-only'],
      },
    },
    {
      name: 'client-is-for-browsers',
      severity: 'error',
      comment: 'Types of the interface and nothing else: it runs where there is only fetch.',
      from: { path: '^src/client/' },
      to: { path: '.', pathNot: '^src/client/', dependencyTypesNot: ['type-only'] },
    },
    { name: 'no-test-in-product', severity: 'error', from: { path: '^src/' }, to: { path: '^(test|scripts)/' } },
    { name: 'resolvable', severity: 'error', from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      extensions: ['.ts', '.js', '.mjs'],
      conditionNames: ['import', 'node', 'default'],
    },
  },
};
