/* SPDX-License-Identifier: Apache-2.0 */
/* assets.S - the page's files, as they are, in the program. */
    .section .rodata
.macro asset name, file
    .global cli_ui_\name, cli_ui_\name\()_end
cli_ui_\name:
    .incbin "\file"
cli_ui_\name\()_end:
.endm
    asset index, "index.html"
    asset style, "style.css"
    asset app, "app.js"
    asset worker, "worker.js"
    .section .note.GNU-stack, "", %progbits
