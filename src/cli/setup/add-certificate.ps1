# Adds a new certificate to the application with which Postern on @HOST@ sends mail; it keeps those that it has, and its
# permissions. It may run as often as you like. There is no secret in this file: the certificate is for everybody to see, and
# its key has not left the gateway. For Windows PowerShell 5.1 and PowerShell 7.
#
#   powershell -ExecutionPolicy Bypass -File .\@FILE@            does it
#   powershell -ExecutionPolicy Bypass -File .\@FILE@ -WhatIf    says what it would do, and changes nothing
#   powershell -ExecutionPolicy Bypass -File .\@FILE@ -Undo      takes this certificate away again
#
# Whoever runs it is asked to log in, and needs this role: @ROLES@.
# Each step is a line that begins with ok, or with FAILED and its reason, and then it ends.

[CmdletBinding(SupportsShouldProcess = $true)]
param(
    [switch] $Undo
)

$ErrorActionPreference = 'Stop'
$Caller = $PSCmdlet

$ClientId = @CLIENT@
$TenantId = @TENANT@
$GraphEnvironment = @GRAPH@
# What tells this certificate from the others of the application.
$KeyName = @KEYNAME@
$Certificate = @(
@CERTIFICATE@
) -join ''

function Write-Step([string] $State, [string] $Text) {
    Write-Host ('{0,-7} {1}' -f $State, $Text)
}

# Does what changes something, unless it was asked only what would be done.
function Invoke-Step([string] $What, [scriptblock] $Action) {
    if ($Caller.ShouldProcess($What)) {
        & $Action
        Write-Step 'ok' $What
    }
}

function Import-Needed([string] $Module) {
    if (-not (Get-Module -ListAvailable -Name $Module)) {
        if ($WhatIfPreference) {
            throw ('the module {0} is not installed, and with -WhatIf nothing is' -f $Module)
        }
        $Answer = Read-Host ('The module {0} is not installed. Install it from the PowerShell Gallery, for this user? [y/N]' -f $Module)
        if ($Answer -notmatch '^[yY]') {
            throw ('the module {0} is not installed' -f $Module)
        }
        # The Gallery takes nothing older, and Windows PowerShell may begin with less.
        [Net.ServicePointManager]::SecurityProtocol = [Net.ServicePointManager]::SecurityProtocol -bor [Net.SecurityProtocolType]::Tls12
        Install-Module -Name $Module -Repository PSGallery -Scope CurrentUser -ErrorAction Stop
    }
    Import-Module -Name $Module -ErrorAction Stop
}

$Step = 'modules'
try {
    Import-Needed 'Microsoft.Graph.Applications'
    $Step = 'login at Microsoft Graph'
    Connect-MgGraph -Scopes @('Application.ReadWrite.All') -TenantId $TenantId -Environment $GraphEnvironment -ContextScope Process -NoWelcome -ErrorAction Stop
    $Context = Get-MgContext
    Write-Step 'ok' ('logged in as {0}, tenant {1}' -f $Context.Account, $Context.TenantId)

    $Step = 'application'
    $Found = @(Get-MgApplication -Filter "appId eq '$ClientId'" -ErrorAction Stop)
    if ($Found.Count -ne 1) {
        throw ('there is no application with the client ID {0} in this tenant' -f $ClientId)
    }
    # Asked for by name and alone it comes with the certificates that it has; they must go back with the new one.
    $App = Get-MgApplication -ApplicationId $Found[0].Id -Property 'id,appId,displayName,keyCredentials' -ErrorAction Stop
    Write-Step 'ok' ('application {0}' -f $App.DisplayName)

    $Step = 'certificate'
    $Ours = @($App.KeyCredentials | Where-Object { $_ -and ($_.DisplayName -eq $KeyName) })
    $Others = @($App.KeyCredentials | Where-Object { $_ -and ($_.DisplayName -ne $KeyName) })
    if ($Undo) {
        if ($Ours.Count -gt 0) {
            Invoke-Step ('removed: certificate {0}' -f $KeyName) { Update-MgApplication -ApplicationId $App.Id -KeyCredentials $Others -ErrorAction Stop }
        }
        else {
            Write-Step 'ok' 'the application does not have this certificate: nothing is left to remove'
        }
    }
    elseif ($Ours.Count -gt 0) {
        Write-Step 'ok' ('certificate {0}' -f $KeyName)
    }
    else {
        $Key = @{
            Type        = 'AsymmetricX509Cert'
            Usage       = 'Verify'
            Key         = [Convert]::FromBase64String($Certificate)
            DisplayName = $KeyName
        }
        Invoke-Step ('certificate {0}' -f $KeyName) { Update-MgApplication -ApplicationId $App.Id -KeyCredentials (@($Others) + $Key) -ErrorAction Stop }
    }
}
catch {
    Write-Step 'FAILED' ('{0}: {1}' -f $Step, $_.Exception.Message)
    exit 1
}
