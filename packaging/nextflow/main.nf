#!/usr/bin/env nextflow

// Differential abundance for every h5ad file, by the command line of scratio.

params.cells = 'cells/*.h5ad'
params.outdir = 'results'
params.options = '--condition-key condition --treatment treated --reference control --sample-key donor --effort quick'

process DIFFERENTIAL_ABUNDANCE {
    tag "${cells.baseName}"
    publishDir params.outdir, mode: 'copy'
    cpus 2
    memory '8 GB'
    // Exit code 2: arguments or files cannot be used. Everything else, such as a full disk, may pass at the second try.
    errorStrategy { task.exitStatus == 2 ? 'terminate' : 'retry' }
    maxRetries 1

    input:
    path cells

    output:
    path "${cells.baseName}.da.h5ad", emit: h5ad
    path "${cells.baseName}.da.json", emit: json
    path "${cells.baseName}.da.png", emit: plot

    script:
    """
    export OMP_NUM_THREADS=${task.cpus}
    scratio da ${cells} ${params.options} \\
        --out '${cells.baseName}.da.h5ad' --json '${cells.baseName}.da.json' --plot '${cells.baseName}.da.png'
    """
}

workflow {
    DIFFERENTIAL_ABUNDANCE(channel.fromPath(params.cells, checkIfExists: true))
}
