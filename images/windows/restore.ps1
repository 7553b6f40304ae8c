# Copy what this image has cached into a job's workspace: restore.ps1 [WORKSPACE]. It overwrites nothing and never fails the job (..\README.md).
param([string]$Workspace)
$ErrorActionPreference = 'Stop'
$cache = Join-Path $PSScriptRoot 'workspace'
foreach ($known in $env:GITHUB_WORKSPACE, $env:CI_PROJECT_DIR, $env:CI_WORKSPACE, '.') {
    if (-not $Workspace) { $Workspace = $known }
}
if (-not (Test-Path -LiteralPath $cache -PathType Container)) {
    [Console]::Error.WriteLine("restore: there is no $cache")
    exit 0
}
if (-not (Test-Path -LiteralPath $Workspace -PathType Container)) {
    [Console]::Error.WriteLine("restore: $Workspace cannot be written")
    exit 0
}
Get-ChildItem -LiteralPath $cache -Recurse -File -Force | ForEach-Object {
    $target = Join-Path $Workspace $_.FullName.Substring($cache.Length + 1)
    try {
        if (-not (Test-Path -LiteralPath $target)) {
            New-Item -ItemType Directory -Force (Split-Path $target) | Out-Null
            Copy-Item -LiteralPath $_.FullName -Destination $target
        }
    } catch {
        [Console]::Error.WriteLine("restore: $_")
    }
}
exit 0
