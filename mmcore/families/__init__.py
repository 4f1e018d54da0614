"""Released models of other families, driven by this library's own writing loop.

Each family is one module that puts parts together which the others use too; `mmcore.load(FOLDER)` recognises its
released layout. What they learn from, and the losses, are in `lessons`, `showo2_lessons` and `teaching`; the recipe
`finetune` trains adapters of them.

| family | module | reads and writes |
|---|---|---|
| BAGEL (arXiv 2505.14683) | `bagel` | text, pictures |
| Lance (arXiv 2605.18678) | `lance` | text, pictures, clips |
| Show-o2 (arXiv 2506.15564) | `showo2` | text, pictures; reads clips, and can film where weights do |
"""
