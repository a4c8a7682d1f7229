/** The modules of the engine, loaded when first needed: most commands start no machine. */

export async function loadEngine() {
  const modules = await Promise.all([
    import('./clone/accelerator.ts'), import('./clone/template.ts'), import('./clone/trial.ts'),
    import('./clone/vmm/qemu.ts'), import('./profile/generate.ts'), import('./clone/policy.ts'),
  ]);
  const [{ chooseAccelerator }, templates, { trialBoot }, { bootOnce, createQemu }, { workloadId }, policy] = modules;
  const { openTemplates, templateKey } = templates;
  const { policyCompiler } = policy;
  return {
    chooseAccelerator, openTemplates, templateKey, trialBoot, bootOnce, createQemu, workloadId, policyCompiler,
  };
}
