/** `mayfly image …`: commands, options, help and examples of the repository. What they do is in image.ts. */
import { Option } from 'commander';
import type { Command } from 'commander';
import type { Io } from './io.ts';

export function addImageCommands(program: Command, io: Io, exit: (code: number) => void): void {
  const load = (): Promise<typeof import('./image.ts')> => import('./image.ts');
  const group = program
    .command('image')
    .description('the repository of base images: list, tag, sign, move, clean up')
    .addHelpText('after', `
An image is named by NAME (its tag latest), NAME:TAG or the digest of its manifest.

Examples:
  mayfly image list
  mayfly image export node /mnt/stick/node
  mayfly image import /mnt/stick/node --tag node:stick
`);

  group
    .command('list')
    .description('images with their tags, and who has signed them')
    .option('--json', 'as JSON')
    .addHelpText('after', examples('mayfly image list', 'mayfly image list --json | jq -r .images[].digest'))
    .action(async (options) => exit(await (await load()).list(io, options)));
  group
    .command('show')
    .description('the manifest of an image: what it is for, what is in it, who has signed it')
    .argument('<image>')
    .option('--json', 'as JSON')
    .addHelpText('after', examples('mayfly image show node', 'mayfly image show node --json | jq .manifest.packages'))
    .action(async (image: string, options) => exit(await (await load()).show(io, image, options)));
  group
    .command('verify')
    .description('read images completely and check every digest and signature')
    .argument('[image]', 'all when absent')
    .option('--json', 'as JSON')
    .addHelpText('after', examples('mayfly image verify', 'mayfly image verify node:stable'))
    .action(async (image: string | undefined, options) => exit(await (await load()).verify(io, image, options)));
  group
    .command('build')
    .description('make an image of a directory, alone or above another image')
    .option('--from-dir <dir>', 'the directory (default: that of the Mayflyfile)')
    .option('-f, --file <file>', 'Mayflyfile: FROM, COPY, ADD, ENV, WORKDIR, ENTRYPOINT, CMD, LABEL of a Dockerfile')
    .option('--base <image>', 'without a Mayflyfile: the image that the directory is laid above')
    .requiredOption('--as <name>', 'name of the image')
    .option('--accel <mode>', 'auto, kvm or tcg: a clone of the base says where its links lead', 'auto')
    .option('--allow-unsigned', 'also above an image that no trusted key has signed')
    .option('--json', 'as JSON')
    .addHelpText('after', examples(
      'mayfly image build -f examples/build/Mayflyfile --as sums',
      'mayfly image build --from-dir ./rootfs --as mine',
      'mayfly image build --from-dir ./site --base web --as site',
    ))
    .action(async (options) => exit(await (await import('./image-build.ts')).build(io, options)));
  group
    .command('check')
    .description('boot an image and run the conformance suite in its clones')
    .argument('<image>')
    .option('--accel <mode>', 'auto, kvm or tcg', 'auto')
    .option('--allow-unsigned', 'also when no trusted key has signed it')
    .option('--json', 'as JSON')
    .addHelpText('after', examples('mayfly image check node', 'mayfly image check debian --json | jq .ok'))
    .action(async (image: string, options) => {
      exit(await (await import('./image-check.ts')).check(io, image, options));
    });
  group
    .command('tag')
    .description('give an image another name, or move a name to it')
    .argument('<image>')
    .argument('<tag>', 'NAME:TAG')
    .option('--allow-downgrade', 'also when the tag names a newer image')
    .option('--allow-unsigned', 'also when no trusted key has signed the image')
    .option('--json', 'as JSON')
    .addHelpText('after', examples('mayfly image tag node node:stable', 'mayfly image tag sha256:… node:latest'))
    .action(async (image: string, tag: string, options) => exit(await (await load()).tag(io, image, tag, options)));
  group
    .command('untag')
    .description('take a name away; the image stays until it is collected')
    .argument('<tag>', 'NAME:TAG')
    .option('--json', 'as JSON')
    .addHelpText('after', examples('mayfly image untag node:stable'))
    .action(async (tag: string, options) => exit(await (await load()).untag(io, tag, options)));
  group
    .command('remove')
    .description('remove an image and all its tags; `gc` frees the space')
    .argument('<image>')
    .option('--json', 'as JSON')
    .addHelpText('after', examples('mayfly image remove node:stick'))
    .action(async (image: string, options) => exit(await (await load()).remove(io, image, options)));
  group
    .command('gc')
    .description('free the space of stale templates and of what no tag, template or set-up needs')
    .option('--dry-run', 'only say what would go')
    .option('--all', 'also what is younger than an hour; only while nothing is being imported or run')
    .option('--json', 'as JSON')
    .addHelpText('after', examples('mayfly image gc --dry-run', 'mayfly image gc --all'))
    .action(async (options) => exit(await (await load()).collect(io, options)));
  group
    .command('warm')
    .description('build the templates of images ahead, so that their first events need not wait; with low priority')
    .argument('[image]')
    .option('--all', 'of all images')
    .addOption(new Option('--accel <mode>', 'auto, kvm or tcg').default('auto'))
    .option('--json', 'as JSON')
    .addHelpText('after', examples('mayfly image warm node', 'mayfly image warm --all &'))
    .action(async (image: string | undefined, options) => {
      exit(await (await import('./warm.ts')).warm(io, image, options));
    });
  group
    .command('export')
    .description('write an image, with its signatures, as an OCI image layout')
    .argument('<image>')
    .argument('<folder>', 'a new folder')
    .option('--json', 'as JSON')
    .addHelpText('after', examples('mayfly image export node ./node-image'))
    .action(async (image: string, folder: string, options) => {
      exit(await (await load()).exportImage(io, image, folder, options));
    });
  group
    .command('import')
    .description('take over an image: one that `mayfly image export` has written, or anybody\'s OCI image')
    .argument('<source>', 'a folder of `image export`, oci:DIR[:TAG], docker-archive:FILE[:TAG] or docker://HOST/NAME')
    .option('--as <name>', 'name of an image that is not Mayfly\'s')
    .option('--auth-file <file>', 'credentials for registries (default: docker\'s configuration)')
    .option('--plain-http', 'no TLS, also to a registry that is not on this machine')
    .option('--tag <tag>', 'name it NAME:TAG (default: its own name, latest)')
    .option('--allow-unsigned', 'also when no trusted key has signed it')
    .option('--allow-downgrade', 'also when the tag names a newer image')
    .option('--json', 'as JSON')
    .addHelpText('after', examples(
      'mayfly image import oci:./debian:12 --as debian',
      'mayfly image import docker://registry.example/team/app:3 --as app',
      'mayfly image import ./out',
      'mayfly image import ./out --tag node:vendor',
    ))
    .action(async (folder: string, options) => exit(await (await load()).importImage(io, folder, options)));
  group
    .command('sign')
    .description('sign an image with this machine\'s key: you vouch for it')
    .argument('<image>')
    .option('--json', 'as JSON')
    .addHelpText('after', examples('mayfly image sign sha256:…'))
    .action(async (image: string, options) => exit(await (await load()).sign(io, image, options)));
  group
    .command('trust')
    .description('list the keys whose images run here, trust another one, or print this machine\'s')
    .argument('[file]', 'public Ed25519 key in PEM, to be trusted from now on')
    .option('--remove <key>', 'trust this key (sha256:…) no longer')
    .option('--own', 'print this machine\'s public key, for others to trust')
    .option('--json', 'as JSON')
    .addHelpText('after', examples('mayfly image trust vendor.pem', 'mayfly image trust --own > us.pem'))
    .action(async (file: string | undefined, options) => exit(await (await load()).trust(io, file, options)));
}

function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  ${line}\n`).join('')}`;
}
